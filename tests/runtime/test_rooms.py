"""No module of the runtime reads the private attributes of another's objects.

tests/house has the rules of every room: private modules, arrows and names of methods.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support.modules import product


def private_uses(tree: ast.AST) -> Iterator[str]:
    """Private attributes of anything but ``self`` and ``cls``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or (
            isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        ):
            continue
        if node.attr.startswith("_") and not node.attr.startswith("__"):
            yield ast.unparse(node)


def test_what_is_private_stays_in_its_object() -> None:
    modules = {path: tree for path, tree in product().items() if path.startswith("runtime/")}
    assert len(modules) > 50
    assert [f"{path}: {use}" for path, tree in modules.items() for use in private_uses(tree)] == []


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("self._writer = session._writer", ["session._writer"]),
        ("self.session._kernels", ["self.session._kernels"]),
        ("session.__class__\ncls._made", []),
    ],
)
def test_a_private_use_is_seen(source: str, seen: list[str]) -> None:
    assert list(private_uses(ast.parse(source))) == seen
