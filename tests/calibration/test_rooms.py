"""Who imports whom among the floors of ``calibration/``: arrows go one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "calibration"
#: A floor, or a module at the top, and what it may import of the room.
MAY: dict[str, set[str]] = {
    "quantize": set(),
    "routes": set(),
    "experts": set(),
    "search": {"quantize"},
    "result": {"quantize", "routes", "experts", "search"},
    "report": {"result", "quantize", "routes", "experts", "search"},
    "run": {"report", "result", "quantize", "routes", "experts", "search"},
    "export": {"run", "result", "quantize", "routes", "search"},
    "calibrate": {"run", "result", "search"},
}


def _imported(floor: str) -> set[str]:
    """What the files of a floor import of the room, but the floor itself."""
    files = [*(ROOT / floor).rglob("*.py")] or [ROOT / f"{floor}.py"]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("eptx.calibration"):
                parts = node.module.split(".")
                found |= {parts[2]} if len(parts) > 2 else {alias.name for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {n.name.split(".")[2] for n in node.names if n.name.startswith("eptx.calibration.")}
    return found - {floor}


def test_every_floor_has_a_rule() -> None:
    floors = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert floors - {"__init__"} == set(MAY)
    for path in ROOT.iterdir():
        assert not path.is_dir() or path.name == "__pycache__" or (path / "__init__.py").read_text().startswith('"""')


@pytest.mark.parametrize("floor", MAY)
def test_arrows_go_one_way(floor: str) -> None:
    assert _imported(floor) <= MAY[floor]


def test_the_rules_have_no_circle() -> None:
    done: set[str] = set()
    for floor, below in MAY.items():
        assert below <= done, floor
        done.add(floor)


def test_a_private_module_is_imported_in_its_own_folder_only() -> None:
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("eptx."):
                private = [name for name in (*node.module.split("."), *(a.name for a in node.names)) if name[0] == "_"]
                assert set(private) <= {"_html", "_page", "_text_table", "_version", "__version__"}, file
