"""The rooms of libeptx: which room includes which, read from the sources."""

from __future__ import annotations

import re
from pathlib import Path

CPP = Path(__file__).parents[3] / "runtime" / "cpp"
#: A file includes headers of its own room and of those before it.
ROOMS = (
    "readers",
    "readers/formats",
    "readers/bundle",
    "readers/request",
    "readers/proof",
    "session",
    "generate",
    "validate",
    "c_api",
)
#: headers outside of src/ -> the first room that may include them
OUTSIDE = {"eptx.h": "readers", "ops/domain.h": "readers/bundle", "ops/register.h": "session"}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]*)"', re.MULTILINE)


def wrong_includes(src: Path) -> list[str]:
    """Includes without a room, of a file that is not there, or of a room that comes later."""
    wrong = []
    for file in sorted([*src.rglob("*.cc"), *src.rglob("*.h")]):
        name = file.relative_to(src)
        place = ROOMS.index(name.parent.as_posix())
        for header in INCLUDE.findall(file.read_text()):
            room = OUTSIDE.get(header, Path(header).parent.as_posix())
            is_there = header in OUTSIDE or (src / header).is_file()
            if not is_there or room not in ROOMS or ROOMS.index(room) > place:
                wrong.append(f"{name}: {header}")
    return wrong


def test_arrows_go_one_way() -> None:
    assert wrong_includes(CPP / "src") == []


def test_every_room_is_there() -> None:
    folders = {path.parent.relative_to(CPP / "src").as_posix() for path in (CPP / "src").rglob("*.cc")}
    assert folders == set(ROOMS)


def test_the_operators_include_nothing_of_libeptx() -> None:
    """Without libeptx they are the extension for Python."""
    for file in [*(CPP / "ops").glob("*.cc"), *(CPP / "ops").glob("*.h")]:
        headers = INCLUDE.findall(file.read_text())
        assert [header for header in headers if not header.startswith("ops/")] == [], file.name


def test_an_arrow_the_other_way_is_found(tmp_path: Path) -> None:
    for name, text in {
        "readers/text.h": "",
        "readers/text.cc": '#include "readers/text.h"\n#include "session/ort.h"\n',
        "session/ort.h": '#include "readers/text.h"\n#include "text.h"\n#include "readers/absent.h"\n',
        "readers/bundle/bundle.h": '#include "readers/request/feeds.h"\n#include "ops/register.h"\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert wrong_includes(tmp_path) == [
        "readers/bundle/bundle.h: readers/request/feeds.h",
        "readers/bundle/bundle.h: ops/register.h",
        "readers/text.cc: session/ort.h",
        "session/ort.h: text.h",
        "session/ort.h: readers/absent.h",
    ]
