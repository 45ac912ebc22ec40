"""The floors of exporter/validation: what each may import from the others. Arrows point down only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from eptx.exporter import validation

ROOM = Path(validation.__file__).parent
PACKAGE = validation.__name__
#: From the ground up; a floor imports from those before it.
FLOORS = ("", "base", "inputs", "quantized", "reference", "bundle", "contents", "comparison", "accuracy", "report")
#: The ground: one-idea modules beside the floors that know none of them.
GROUND = {"check", "distance", "options", "timings"}
#: The roof, which puts the floors together.
ROOF = {"__init__", "run"}
#: The floors that compare a bundle without running it know nothing of what does.
APART = {"contents": {"inputs", "quantized", "bundle"}, "bundle": {"reference"}, "reference": {"bundle"}}


def _modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOM).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(ROOM.rglob("*.py"))
    }


def _imports(path: Path) -> Iterator[str]:
    """The modules of the room that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith(f"{PACKAGE}.") and name.removeprefix(f"{PACKAGE}.") in _modules():
                yield name.removeprefix(f"{PACKAGE}.")


def _floor(module: str) -> str:
    first = module.partition(".")[0]
    return first if first in FLOORS else ""


def _wrong(module: str, imported: str) -> bool:
    if module in ROOF:
        return False
    if imported in ROOF or (module in GROUND and imported not in GROUND):
        return True
    own, other = _floor(module), _floor(imported)
    return FLOORS.index(other) > FLOORS.index(own) or other in APART.get(own, set())


def test_arrows_point_down() -> None:
    modules = _modules()
    assert {_floor(name) for name in modules} == {*FLOORS}
    assert {name for name in modules if not _floor(name)} == GROUND | ROOF
    arrows = [(name, other) for name, path in modules.items() for other in _imports(path)]
    assert len(arrows) > 150
    assert [arrow for arrow in arrows if _wrong(*arrow)] == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("base.source", "inputs.batch"),
        ("reference.expectation", "bundle.models"),
        ("bundle.models", "reference.expected"),
        ("contents.compare", "bundle.models"),
        ("inputs.batch", "run"),
        ("check", "inputs.batch"),
    ],
)
def test_an_arrow_up_is_seen(module: str, imported: str) -> None:
    assert _wrong(module, imported)
    assert not _wrong("run", imported)


def test_a_floor_has_few_peers_and_says_what_it_is_for() -> None:
    floors = {path.parent for path in _modules().values()}
    assert floors > {ROOM / name for name in FLOORS}
    for floor in floors:
        assert ast.get_docstring(ast.parse((floor / "__init__.py").read_text(encoding="utf-8"))), floor
        assert len(list(floor.glob("*.py"))) <= 13, floor


def test_words_of_the_field() -> None:
    """One word for one thing: these words had another one."""
    retired = re.compile(r"\b(truth|sharpen\w*|twins?|eyes|judges?|judged|outline|companions)\b", re.IGNORECASE)
    found = [(name, word) for name, path in _modules().items() for word in retired.findall(path.read_text("utf-8"))]
    assert found == []
