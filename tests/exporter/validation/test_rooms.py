"""The floors of exporter/validation and runtime/validation; their arrows are contracts of import-linter."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from eptx.exporter import validation as with_reference
from eptx.runtime import validation

ROOMS = [Path(room.__file__).parent for room in (with_reference, validation)]
#: Words for which the field has another: reference, float activations, baseline, check, compare.
RETIRED = re.compile(r"\b(truth|sharpen\w*|twins?|eyes|judges?|judged|outline|companions)\b", re.IGNORECASE)


def test_a_floor_says_what_it_is_for() -> None:
    floors = {path.parent for room in ROOMS for path in room.rglob("*.py")}
    assert len(floors) > 10
    for floor in floors:
        assert ast.get_docstring(ast.parse((floor / "__init__.py").read_text(encoding="utf-8"))), floor


def test_one_word_for_one_thing() -> None:
    """In docstrings, comments and messages too."""
    assert RETIRED.findall("Whose truth is judged?") == ["truth", "judged"]
    paths = [path for room in ROOMS for path in room.rglob("*.py")]
    found = {path: RETIRED.findall(path.read_text(encoding="utf-8")) for path in paths}
    assert {path: words for path, words in found.items() if words} == {}
