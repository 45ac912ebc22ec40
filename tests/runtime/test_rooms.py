"""What the rooms of the runtime keep to themselves (pyproject.toml has which room imports which)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
METHODS = ("ept", "tucka", "lora")


def sources(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """The runtime's modules by dotted name."""
    for path in sorted((root / "runtime").rglob("*.py")):
        if "cpp" not in path.relative_to(root).parts:
            name = ".".join(("eptx", *path.relative_to(root).with_suffix("").parts))
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_uses(root: Path) -> list[str]:
    """Imports of another package's private module, and private attributes of anything but ``self`` and ``cls``."""
    found = []
    for name, module in sources(root):
        for other in imported(module):
            parts = other.split(".")
            first = next((i for i, part in enumerate(parts) if is_private(part)), None)
            if first is not None and not f"{name}.".startswith(".".join(parts[:first]) + "."):
                found.append(f"{name} imports {other}")
        found += [
            f"{name} uses {ast.unparse(node)}"
            for node in ast.walk(module)
            if isinstance(node, ast.Attribute) and is_private(node.attr)
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        ]
    return found


def test_what_is_private_stays_in_its_room() -> None:
    assert private_uses(ROOT) == []


def test_a_reach_into_another_room_is_found(tmp_path: Path) -> None:
    for name, text in {
        "serving/http/app.py": "import eptx.runtime.packaging._config\nfrom eptx._version import __version__",
        "serving/models/generate.py": "self._writer = session._writer\nsession.__class__",
        "packaging/triton.py": "from eptx.runtime.packaging._config import has_batch",
    }.items():
        path = tmp_path / "runtime" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert private_uses(tmp_path) == [
        "eptx.runtime.serving.http.app imports eptx.runtime.packaging._config",
        "eptx.runtime.serving.models.generate uses session._writer",
    ]


@pytest.mark.parametrize("method", METHODS)
def test_no_method_is_named(method: str) -> None:
    """A bundle's ``eptx.json`` says what the runtime must know of its adapter."""
    named = [
        f"{name}:{node.lineno}"
        for name, module in sources(ROOT)
        for node in ast.walk(module)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if method in node.value.lower().replace("`", " ").replace("/", " ").split()
    ]
    assert named == []
