"""docs/architecture.md is true: its rooms and files exist, and imports go where the arrows of its picture go."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = ("eptx", "exporter", "runtime", "calibration")
#: Every folder right below one of these is a room.
HOUSES = (*PACKAGES, "runtime/cpp")
#: Files that stand for a room, as the page says: what is beside them in their house belongs to them.
SESSION = "runtime/session.py"
BESIDE = {"exporter/__init__.py": "exporter/steps", "exporter/precision.py": "exporter/options.py"}
BESIDE |= {"runtime/__init__.py": SESSION}
#: Imports against the arrows, of single files: methods/tuner.py and methods/peft_types.py lie below.
AGAINST = {("exporter/trained", "exporter/methods"), ("exporter/training", "exporter/methods")}


def test_every_room_has_a_row() -> None:
    """The floors that a row names exist too."""
    rows = re.findall(r"^\| `([\w/]+)/` \| (.*) \|$", PAGE, re.MULTILINE)
    named = {room for room, _ in rows}
    rooms = {
        str(folder.relative_to(ROOT))
        for house in HOUSES
        for folder in (ROOT / house).iterdir()
        if folder.is_dir() and not folder.is_symlink() and folder.name[0] not in "_."
    }
    assert rooms - named == {"runtime/cpp"}, "a room has no row"
    assert all((ROOT / room).is_dir() for room in named), "a row has no room"
    for room, text in rows:
        for floor in re.findall(r"`(\w+)/`", text):
            assert (ROOT / room / floor).is_dir(), f"{room}/{floor}"


def test_files_that_the_page_names_exist() -> None:
    """A file is named by its path from the root, or by the end of it."""
    files = {str(path) for path in sources()}
    named = set(re.findall(r"`([\w/<>]+\.py)`", PAGE))
    assert len(named) > 15
    for name in named:
        end = re.escape(name).replace("<name>", r"\w+")
        assert any(re.search(rf"(^|/){end}$", file) for file in files), name


def sources() -> Iterator[Path]:
    """The Python files of the packages, from the root; those below links once."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if not any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(ROOT)):
                yield path.relative_to(ROOT)


def arrows() -> dict[str, set[str]]:
    """The picture: room -> the rooms that its arrows lead to."""
    (picture,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
    rooms = dict(re.findall(r'(\w+)\["([\w/.]+)"\]', picture))
    found: dict[str, set[str]] = {room: set() for room in rooms.values()}
    for start, end in re.findall(r"^\s*(\w+)(?:\[.*?\])? --> (\w+)", picture, re.MULTILINE):
        found[rooms[start]].add(rooms[end])
    return found


def reached(arrows: dict[str, set[str]], room: str) -> set[str]:
    """The rooms that a room may import."""
    return {end for near in arrows[room] for end in {near, *reached(arrows, near)}}


def room_of(path: Path, rooms: set[str]) -> str | None:
    """The room that a file belongs to; None of a single file that is no room's."""
    name = BESIDE.get(str(path), str(path))
    return next((room for room in rooms if name == room or name.startswith(f"{room}/")), None)


def file_of(module: Path) -> Path | None:
    """The file of a module, from the root."""
    return next((f for f in (module.with_suffix(".py"), module / "__init__.py") if (ROOT / f).is_file()), None)


def imported(path: Path) -> Iterator[Path]:
    """The files of eptx that a file imports, wherever in it."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "eptx":
            parts = str(node.module).split(".")
            module = Path(*parts[1:] if parts[1:2] and parts[1] in PACKAGES else parts)
            for name in node.names:
                found = file_of(module / name.name) or file_of(module)
                assert found is not None, f"{path} imports {node.module}"
                yield found


def test_the_arrows_go_one_way() -> None:
    assert len(arrows()) > 20
    TopologicalSorter(arrows()).prepare()  # raises where there is a cycle


def test_imports_go_where_the_arrows_go() -> None:
    picture = arrows()
    taken = {
        (room_of(path, set(picture)), room_of(file, set(picture)), str(path))
        for path in sources()
        for file in imported(path)
    }
    single = {path for start, end, path in taken if start is None and end is not None}
    assert single == {"eptx/__init__.py", "eptx/__main__.py"}, "a file of no room imports a room"
    used = {(start, end) for start, end, _ in taken if start is not None and end is not None and start != end}
    allowed = {(start, end) for start in picture for end in reached(picture, start)}
    assert used - allowed == AGAINST
    assert {(start, end) for start, ends in picture.items() for end in ends} <= used, "no import takes this arrow"
