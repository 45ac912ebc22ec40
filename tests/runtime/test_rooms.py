"""The rooms of the runtime: which imports which, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A module imports those of its own room and of the rooms before it.
ROOMS = (
    "eptx.runtime.machine",
    "eptx.runtime.outputs",
    "eptx.runtime.ort",
    "eptx.runtime.requests",
    "eptx.runtime.generation",
    "eptx.runtime.session",
    "eptx.runtime.timing",
    "eptx.runtime.measure",
    "eptx.runtime.packaging",
    "eptx.runtime.serving.errors",
    "eptx.runtime.serving.limits",
    "eptx.runtime.serving.metrics",
    "eptx.runtime.serving.interface",
    "eptx.runtime.serving.protocol",
    "eptx.runtime.serving.batching",
    "eptx.runtime.serving.models",
    "eptx.runtime.serving.http",
    "eptx.runtime.serving",
    "eptx.runtime.ray_serve",
    "eptx.runtime",
)
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


def room(name: str) -> int:
    """Of a module's name, or of a name in it; the longest room that it begins with."""
    fitting = [each for each in ROOMS if f"{name}.".startswith(f"{each}.")]
    return ROOMS.index(max(fitting, key=len))


def wrong_imports(root: Path) -> list[str]:
    """Imports of a later room, and of another package's private module."""
    wrong = []
    for name, module in sources(root):
        place = room(name.removesuffix(".__init__"))
        for other in imported(module):
            parts = other.split(".")
            private = next((i for i, part in enumerate(parts) if part.startswith("_") and part[:2] != "__"), None)
            if private is not None and not name.startswith(".".join(parts[:private])):
                wrong.append(f"{name}: {other} is private")
            if parts[:2] == ["eptx", "runtime"] and room(other) > place:
                wrong.append(f"{name}: {other} is of a later room")
    return wrong


def test_arrows_go_one_way() -> None:
    assert wrong_imports(ROOT) == []


def test_every_room_is_there() -> None:
    found = {ROOMS[room(name.removesuffix(".__init__"))] for name, _ in sources(ROOT)}
    assert found == set(ROOMS)


def test_an_arrow_the_other_way_is_found(tmp_path: Path) -> None:
    for name, text in {
        "ort/sessions.py": "from eptx.runtime.session import Session\nfrom eptx.runtime.ort import kernels",
        "serving/batching/queue.py": "def later():\n    from eptx.runtime.serving.http.app import create_app",
        "serving/http/app.py": "import eptx.runtime.packaging._config\nfrom eptx._version import __version__",
        "serving/__init__.py": "from eptx.runtime.serving.http.app import create_app",
    }.items():
        path = tmp_path / "runtime" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert wrong_imports(tmp_path) == [
        "eptx.runtime.ort.sessions: eptx.runtime.session.Session is of a later room",
        "eptx.runtime.serving.batching.queue: eptx.runtime.serving.http.app.create_app is of a later room",
        "eptx.runtime.serving.http.app: eptx.runtime.packaging._config is private",
    ]


def test_nobody_reaches_into_another_object() -> None:
    """``self._x`` and ``cls._x`` only: what another object is asked for is public."""
    reached = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, module in sources(ROOT)
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]
    assert reached == []


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
