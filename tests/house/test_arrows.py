"""Arrows between rooms go one way: the contracts of import-linter in pyproject.toml, which ``make lint`` checks too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from tests.support.modules import ROOT, product


def test_arrows_go_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0


@pytest.mark.parametrize("source", ["eptx.exporter.validation.run", "eptx.exporter.methods.ept.read"])
def test_a_shared_reader_is_seen(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract of the trained model, asked of modules that do reach what makes bundles."""
    given = (ROOT / "pyproject.toml").read_text()
    changed = re.sub(r'source_modules = \["eptx\.exporter\.trained".*\]', f'source_modules = ["{source}"]', given)
    assert changed != given
    (tmp_path / "pyproject.toml").write_text(changed)
    monkeypatch.chdir(ROOT)
    assert lint_imports(str(tmp_path / "pyproject.toml"), no_cache=True) == 1


def test_the_trained_model_finds_nothing_else_of_a_method() -> None:
    """What `methods.modules` imports by name, no contract sees."""
    calls = [
        (path, ast.unparse(node.args[0]))
        for path, tree in product().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "modules"
    ]
    assert sorted(calls) == [
        ("exporter/methods/method.py", "'method'"),
        ("exporter/methods/peft_types.py", "'model'"),
        ("exporter/trained/reference.py", "'reference'"),
    ]
