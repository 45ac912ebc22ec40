"""The half that needs PyTorch: ``python -m tests.cuda.prepare FOLDER``, on any machine.

Exports every case for a provider, validates it on the CPU, records its proof, and writes all of it into FOLDER/1,
FOLDER/2, ... of at most 60 MB each, with a wheel of eptx. FOLDER/1 stands alone; SmolLM2, which has more than that in
4 bits, and TuckA on MiniLM are in the others. On the machine with the GPU, ``pip install`` the wheel with its extra
``gpu``, and run ``python FOLDER/1/run.py``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eptx.calibration import export_bundle
from eptx.errors import EptxError
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.manifest.names import EXPORT_PROVIDERS, REPORT_FILES
from eptx.providers import CPU, PROVIDERS
from tests.cuda.cases import Case, Cases
from tests.cuda.pieces import Pieces

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60_000_000
#: Of the first folder: the wheel, the list of the cases, run.py.
_RESERVED = 2_000_000
GROUPS = ("small", "minilm", "large")


class _NotProvedError(Exception):
    """A bundle that fails its validation on the CPU."""


def prepare(folder: Path, provider: str, groups: Sequence[str], only: Sequence[str] = ("",)) -> list[str]:
    """Writes the folders, and returns what could not be prepared, and why.

    Args:
        folder: where to; must not exist.
        provider: what the graphs are fused for; the CPU where eptx has no fusions for it.
        groups: which of `GROUPS`.
        only: takes the cases whose names have one of these parts.
    """
    fused_for: Any = provider if provider in EXPORT_PROVIDERS else CPU
    pieces = Pieces(folder, LIMIT - _RESERVED)
    listed: list[dict[str, Any]] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as workspace:
        cases = Cases(Path(workspace), fused_for)
        for group in groups:
            if group == "large" and listed:
                pieces.begin()  # so that the first folder stands alone
            for case in cases.of(group):
                if not any(part in case.name for part in only):
                    continue
                try:
                    listed.append(_prepared(case, pieces))
                except (EptxError, _NotProvedError) as error:
                    failed.append(f"{case.name}: {error}")
                    print(f"FAIL  {failed[-1]}", flush=True)
                else:
                    print(f"ok    {case.name}", flush=True)
    pieces.close()
    (folder / "1" / "cases.json").write_text(json.dumps({"fused_for": fused_for, "cases": listed}))
    shutil.copy(Path(__file__).with_name("run.py"), folder / "1")
    return failed


def build_wheel(folder: Path) -> None:
    """Writes a wheel without kernels: they are for CPUs."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-C", "wheel.cmake=false"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True)


def _prepared(case: Case, pieces: Pieces) -> dict[str, Any]:
    """What run.py is told of a case."""
    with tempfile.TemporaryDirectory() as workspace:
        folder = Path(workspace)
        bundle = export_bundle(case.base, [case.adapter], folder / "bundle", case.options)
        if case.proof_bytes is not None:
            record = ValidateOptions(providers=[CPU], record=folder / "proof", record_bytes=case.proof_bytes)
            report = validate_bundle(bundle.path, record)
            if not report.passed:
                raise _NotProvedError(report.reason)
        if case.released is not None:
            shutil.copy(case.released[0], folder / "released.npz")
        for name in REPORT_FILES:
            (bundle.path / name).unlink(missing_ok=True)
        return {
            "name": case.name,
            "files": pieces.add(folder),
            "released_tasks": case.released[1] if case.released is not None else [],
            "over": case.over,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 where a case could not be prepared, or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--provider", choices=PROVIDERS, default="cuda", help="what the graphs are fused for")
    parser.add_argument("--groups", nargs="*", choices=GROUPS, default=GROUPS)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of the names of the cases to take")
    parser.add_argument("--no-wheel", action="store_true", help="eptx is on the other machine already")
    chosen = parser.parse_args(arguments)
    if chosen.folder.exists():
        parser.error(f"{chosen.folder} is there already")
    failed = prepare(chosen.folder, chosen.provider, chosen.groups, chosen.only)
    if not chosen.no_wheel:
        build_wheel(chosen.folder / "1")
    for part in sorted(chosen.folder.iterdir()):
        size = sum(path.stat().st_size for path in part.iterdir())
        print(f"{part}: {size / 1e6:.1f} MB")
        if size > LIMIT:
            failed.append(f"{part} is larger than {LIMIT / 1e6:.0f} MB")
            print(f"FAIL  {failed[-1]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
