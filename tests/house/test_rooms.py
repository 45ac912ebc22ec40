"""Rooms: private modules stay inside, folders have floors, and files are short. test_arrows.py has the imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.modules import ROOMS, ROOT, WAYS_IN, imported_by, package_of, product, sources_of_tests

MOST_PEERS, MOST_LINES = 13, 300


def reaches(tree: ast.AST, package: str) -> Iterator[str]:
    """The private modules that are imported and belong to a package around which ``package`` does not stand."""
    for name in imported_by(tree):
        parts = name.split(".")
        owners = (".".join(parts[:i]) for i, part in enumerate(parts) if re.match("_[^_]", part))
        if parts[0] in ("eptx", "tests") and any(not f"{package}.".startswith(f"{owner}.") for owner in owners):
            yield name


def package_under_test(path: str) -> str:
    """The package that a test is about: tests/runtime/x.py is about eptx.runtime, tests/eptx/x.py about eptx."""
    folder = Path(path).parent.relative_to("tests").as_posix()
    return "eptx" if folder in (".", "eptx") else f"eptx.{folder.replace('/', '.')}"


def test_private_modules_stay_inside_their_package() -> None:
    assert [f"{path}: {name}" for path, tree in product().items() for name in reaches(tree, package_of(path))] == []


def test_tests_reach_only_private_modules_of_what_they_test() -> None:
    wrong = {
        f"{path}: {name}"
        for path, tree in sources_of_tests().items()
        for name in {*reaches(tree, package_under_test(path))} & {*reaches(tree, package_of(path))}
    }
    assert sorted(wrong) == []


@pytest.mark.parametrize(
    ("source", "package", "seen"),
    [
        ("from eptx.cli._main import main", "eptx.calibration", True),
        ("from eptx.cli import _main", "eptx", True),
        ("import eptx.bundle._reader", "eptx.exporter", True),
        ("from eptx.cli._main import cli", "eptx.cli", False),
        ("from eptx._one_line import shown", "eptx.runtime.serving", False),
    ],
)
def test_a_reach_is_seen(source: str, package: str, seen: bool) -> None:
    assert bool([*reaches(ast.parse(source), package)]) == seen


def test_folders_have_floors() -> None:
    inside: dict[str, set[str]] = {"eptx": {*ROOMS}}
    for path in product():
        parts = path.split("/")
        for depth in range(1, len(parts)) if path not in WAYS_IN else ():
            inside.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    one_kind = {"exporter/methods": {path.parent.name for path in ROOT.glob("exporter/methods/*/method.py")}}
    peers = {
        folder: [name for name in names - one_kind.get(folder, set()) if not name.startswith("__")]
        for folder, names in inside.items()
    }
    assert {folder for folder, names in peers.items() if len(names) > MOST_PEERS} == set()


def test_files_are_short() -> None:
    lines = {path: len((ROOT / path).read_text().splitlines()) for path in product()}
    assert {path for path, count in lines.items() if count > MOST_LINES} == set()
