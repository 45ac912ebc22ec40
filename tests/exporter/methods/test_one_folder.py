"""A method is one folder: outside of `exporter/methods` no code names one.

Docstrings and comments may, as examples; and `eptx/peft.py`, which is their public names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from eptx.exporter.methods.method import methods

ROOT = Path(__file__).parents[3]
PUBLIC = ROOT / "eptx" / "peft.py"
ROOMS = ("eptx", "exporter", "runtime", "calibration")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every identifier and string of a module but its docstrings."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield line, node.value
        elif isinstance(node, ast.Name):
            yield line, node.id
        elif isinstance(node, ast.Attribute):
            yield line, node.attr
        elif isinstance(node, ast.arg | ast.keyword):
            yield line, node.arg or ""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield line, node.name
        elif isinstance(node, ast.ImportFrom):
            yield line, "" if (node.module or "").startswith("peft.") else node.module or ""  # the library's own path
        elif isinstance(node, ast.alias):
            yield line, node.name


def named(text: str, known: set[str]) -> bool:
    """Whether one of the words of an identifier or a sentence is a method's name, as it is known or in lower case."""
    words = (*_WORD.findall(text), *re.findall(r"[A-Za-z]+", text), *re.findall(r"methods\.\w+", text))
    return any(word in known or word.lower() in known for word in words)


def found_in(folder: Path, known: set[str]) -> list[str]:
    files = sorted(
        path for path in folder.rglob("*.py") if folder.joinpath("methods") not in path.parents and path != PUBLIC
    )
    assert files
    return [
        f"{path.relative_to(ROOT)}:{line}: {text[:80]!r}"
        for path in files
        for line, text in names(ast.parse(path.read_text(encoding="utf-8")))
        if named(text, known)
    ]


def test_no_code_outside_names_a_method() -> None:
    known = {method.name for method in methods()} | {method.title.lower() for method in methods()}
    known.remove("peft")  # also the library's name, which much code must say
    known = known - {"more"} | {"MoRE", "methods.more"}  # also a word of English
    found = [line for room in ROOMS for line in found_in(ROOT / room, known) if "/cpp/" not in line]
    assert found == []


def test_the_test_can_fail() -> None:
    known = {"ept", "tucka", "lora"}
    assert named("TuckaAdapter", known) and named("is_ept", known) and named("LoRA has no router", {"lora"})
    assert named("tucka_u", known) and not named("eptx.exporter", known) and not named("except", known)
    assert named("MoRE has 8 ranks", {"MoRE"}) and not named("1 more", {"MoRE"})
    assert named("eptx.exporter.methods.more.read", {"methods.more"})
    assert found_in(ROOT / "exporter" / "methods" / "lora", known)
