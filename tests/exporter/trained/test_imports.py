"""The trained model shares nothing with what makes bundles: no reader, fold, head or attach is on its path.

What a module imports is counted by name, inside functions too, and so is what those modules import, all the way down.
A package's own ``__init__`` counts where the package is what is imported, and not where a module of it is.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: What the trained model may be made of: its own package, the methods' PyTorch side, and rooms below both.
ALLOWED = (
    *(f"eptx.exporter.methods.{{method}}.{name}" for name in ("config", "layer", "model", "reference")),
    "eptx.exporter.methods",
    "eptx.exporter.methods.peft_types",
    "eptx.exporter.methods.tuner",
    "eptx.exporter.adapters",
    "eptx.exporter.adapters.route",
    "eptx.exporter.training.heads",
    "eptx.exporter.quiet",
    "eptx.exporter.bases.names",
    "eptx.exporter.bases.passes.deberta",  # has PyTorch's DeBERTa take positions that differ per row
    "eptx.exporter.bases.weights.config",  # what a base's configuration may not make transformers run
    "eptx.exporter.bases.weights.refused",
)
METHODS = ("ept", "lora", "tucka")
_TOPS = {"eptx": "eptx", "eptx.exporter": "exporter", "eptx.runtime": "runtime", "eptx.calibration": "calibration"}


def _file(module: str) -> Path | None:
    """The file of one of eptx's modules, None if it is no module."""
    top = max((top for top in _TOPS if f"{module}.".startswith(f"{top}.")), key=len, default=None)
    if top is None:
        return None
    path = ROOT / _TOPS[top] / module[len(top) + 1 :].replace(".", "/")
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def imported_by(module: str) -> set[str]:
    """The modules of eptx that a module imports, wherever in it: of a name, the module that it is taken from."""
    path = _file(module)
    assert path is not None, module
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in submodules if _file(name) is not None}
            found |= modules if len(modules) == len(submodules) else {*modules, str(node.module)}
    return {name for name in found if name.partition(".")[0] == "eptx"}


def reached_from(start: set[str]) -> dict[str, str]:
    """Every module of eptx that is imported on the way -> who imports it first."""
    reached, todo = dict.fromkeys(start, ""), sorted(start)
    while todo:
        module = todo.pop()
        for name in sorted(imported_by(module) - reached.keys()):
            reached[name] = module
            todo.append(name)
    return reached


def _trained() -> set[str]:
    files = sorted((ROOT / "exporter" / "trained").glob("*.py"))
    return {f"eptx.exporter.trained.{path.stem}".removesuffix(".__init__") for path in files}


def _allowed() -> set[str]:
    return {name.format(method=method) for name in ALLOWED for method in METHODS}


def _makers(reached: dict[str, str]) -> dict[str, str]:
    """The modules that may make bundles: of the exporter, whatever is not allowed, and eptx's own format."""
    makers = ("eptx.bundle", "eptx.manifest", "eptx.calibration", "eptx.runtime", "eptx.exporter")
    inside = [name for name in reached if any(f"{name}.".startswith(f"{maker}.") for maker in makers)]
    own = "eptx.exporter.trained"
    return {name: reached[name] for name in inside if not f"{name}.".startswith(f"{own}.") and name not in _allowed()}


def test_nothing_that_makes_bundles_is_on_the_path() -> None:
    references = {f"eptx.exporter.methods.{method}.reference" for method in METHODS}
    reached = reached_from(_trained() | references)
    assert len(reached) > 15
    assert _makers(reached) == {}


@pytest.mark.parametrize("module", ["eptx.exporter.validation.run", "eptx.exporter.methods.ept.read"])
def test_the_test_can_fail(module: str) -> None:
    """It sees what others import: the exporter's reader from here and there."""
    assert _makers(reached_from({module}))
