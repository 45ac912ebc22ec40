"""The modules of the product and of the tests, for tests that read sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Rooms of the package that stand at the root; eptx/ links to them.
ROOMS = ("exporter", "runtime", "calibration")
#: What programs run or import, beside the rooms: these files alone import rooms, and belong to none.
WAYS_IN = frozenset({"eptx/__init__.py", "eptx/__main__.py", "eptx/peft.py"})


@cache
def product() -> Mapping[str, ast.Module]:
    """The product's modules: path from the root -> syntax tree."""
    return {path: tree for room in ("eptx", *ROOMS) for path, tree in _trees(room)}


@cache
def sources_of_tests() -> Mapping[str, ast.Module]:
    """The modules of the tests."""
    return dict(_trees("tests"))


def _trees(room: str) -> Iterator[tuple[str, ast.Module]]:
    """Links are not followed: a room is read where it stands."""
    for path in sorted((ROOT / room).rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: str) -> str:
    """The name by which the file at a path from the root is imported."""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"eptx.{name}" if path.partition("/")[0] in ROOMS else name


def package_of(path: str) -> str:
    """The package in which a file stands."""
    return module_of(path) if path.endswith("/__init__.py") else module_of(path).rpartition(".")[0]


@cache
def names() -> frozenset[str]:
    """The names of all modules."""
    return frozenset(module_of(path) for path in (*product(), *sources_of_tests()))


def imported_by(tree: ast.AST) -> Iterator[str]:
    """The modules that a module imports, wherever in it: of a name, the module that it is taken from."""
    known = names()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                yield name if name in known else str(node.module)
