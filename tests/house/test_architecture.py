"""docs/architecture.md is true: its rooms and files exist, and imports go where the arrows of its picture go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter

from tests.support.modules import ROOMS, ROOT, WAYS_IN, imported_by, module_of, product

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
#: Every folder right below one of these is a room.
HOUSES = ("eptx", *ROOMS, "runtime/cpp")
#: Files that stand for a room, as the page says: what is beside them in their house belongs to them.
SESSION = "runtime/session"
BESIDE = {"exporter/__init__.py": "exporter/steps"}
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
    named = set(re.findall(r"`([\w/<>]+\.py)`", PAGE))
    assert len(named) > 15
    for name in named:
        end = re.escape(name).replace("<name>", r"\w+")
        assert any(re.search(rf"(^|/){end}$", file) for file in product()), name


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


def room_of(path: str, rooms: Iterable[str]) -> str | None:
    """The room of a file or module, by its path; None of a single file that is no room's."""
    path = BESIDE.get(path, path)
    return next((room for room in rooms if path == room or path.startswith(f"{room}/")), None)


def taken(picture: Iterable[str]) -> Iterator[tuple[str, str | None, str | None]]:
    """Every import: the file, its room, and the room of what it imports."""
    places = {module_of(path): path for path in product()}
    for path, tree in product().items():
        for module in {*imported_by(tree)} & places.keys():
            yield path, room_of(path, picture), room_of(places[module], picture)


def test_the_arrows_go_one_way() -> None:
    assert len(arrows()) > 20
    TopologicalSorter(arrows()).prepare()  # raises where there is a cycle


def test_imports_go_where_the_arrows_go() -> None:
    picture = arrows()
    imports = [*taken(picture)]
    single = {path for path, start, end in imports if start is None and end is not None}
    assert single == WAYS_IN, "a file of no room imports a room"
    used = {(start, end) for _, start, end in imports if start is not None and end is not None and start != end}
    allowed = {(start, end) for start in picture for end in reached(picture, start)}
    assert used - allowed == AGAINST
    assert {(start, end) for start, ends in picture.items() for end in ends} <= used, "no import takes this arrow"


def closure(starts: Iterable[str]) -> set[str]:
    """The files that modules import, directly or through others, and their own."""
    places = {module_of(path): path for path in product()}
    found: set[str] = set()
    left = [*starts]
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += [places[module] for module in {*imported_by(product()[path])} & places.keys()]
    return found


def test_what_the_reference_shares() -> None:
    """With what makes bundles: the page names each file of the exporter."""
    reference = closure(path for path in product() if re.match(r"exporter/(trained/|methods/\w+/reference\.py)", path))
    makers = closure(path for path in product() if re.match(r"exporter/(steps/|bundle/|methods/\w+/method\.py)", path))
    _, _, section = PAGE.partition("## What the reference shares")
    named = set(re.findall(r"^- .*", section.partition("\n## ")[0], re.MULTILINE))
    files = {file for line in named for file in re.findall(r"`(exporter/[\w/]+\.py)`", line)}
    both = reference & makers
    assert {path for path in both if not path.startswith("eptx/")} == files
    assert {path for path in both if path.startswith("eptx/")} <= {"eptx/errors.py", "eptx/_one_line.py"} | {
        path for path in product() if path.startswith("eptx/files/")
    }
