"""What an object of the runtime keeps to itself stays there; tests/test_rooms.py has the same for modules."""

from __future__ import annotations

import ast

import pytest

from tests.support.modules import product


def reached(module: ast.Module) -> list[str]:
    """The private attributes of anything but ``self`` and ``cls``."""
    return [
        ast.unparse(node)
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]


def test_nobody_reaches_into_another_object() -> None:
    modules = {path: tree for path, tree in product().items() if path.startswith("runtime/")}
    assert len(modules) > 50
    assert {path: names for path, tree in modules.items() if (names := reached(tree))} == {}


@pytest.mark.parametrize("source", ["self._writer = session._writer", "self.session._limits.length", "limits()._x"])
def test_a_reach_is_seen(source: str) -> None:
    assert len(reached(ast.parse(source))) == 1
