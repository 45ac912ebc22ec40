"""Proofs of real bundles: how large they are, and what it takes to record them and to validate by them.

    python -m tests.bench.proofs --out FOLDER [--only minilm int8 ...] [--eptx PROGRAM] [--web FOLDER]

Each step is a process of its own, whose seconds and peak memory are shown. A bundle that is in the folder is not made
again. `--eptx` is the program that validates by the proof: that of an environment with ``eptx[cpu]`` alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eptx.runtime.machine import machine
from tests.bench.proofs_decoder import write_large_decoder
from tests.runtime.cpp.library import BUILD
from tests.support.minilm import minilm

ROOT, _EPTX = Path(__file__).parents[2], Path(sys.executable).with_name("eptx")
_MINILM, _SMOLLM2 = ROOT / "examples" / "glue_minilm" / "ept", ROOT / "examples" / "glue_smollm2" / "ept"
#: Bundle -> the base, and the options of the export.
BUNDLES: Mapping[str, tuple[str, Sequence[str]]] = {
    "minilm": ("minilm", ("--mode", "conditioned")),
    "minilm-dynamic": ("minilm", ("--mode", "dynamic")),
    "minilm-int8": ("minilm", ("--mode", "conditioned", "--precision", "int8")),
    "smollm2-int4": ("smollm2", ("--mode", "conditioned", "--precision", "int4")),
    "1b-int4": ("1b", ("--mode", "conditioned", "--precision", "int4", "--top-k", "2")),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.proofs", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where bases, bundles and proofs go")
    parser.add_argument("--only", nargs="+", choices=BUNDLES, default=list(BUNDLES))
    parser.add_argument("--eptx", type=Path, default=_EPTX, help="validates by the proof")
    parser.add_argument("--web", type=Path, default=ROOT / "examples" / "web", help="the example with its packages")
    arguments = parser.parse_args()
    print(machine())
    for name in arguments.only:
        proof = arguments.out / f"{name}.proof"
        made = record(name, arguments.out, proof)
        print(f"{name}: {made}; {proof.stat().st_size / 1e6:.2f} MB of proof", flush=True)
        for what, command in against(arguments.out / name, proof, arguments).items():
            print(f"{name}: {what}: {timed(command)}", flush=True)


def record(name: str, out: Path, proof: Path) -> str:
    """Exports a bundle, where that is not done yet, and records its proof: what it took."""
    base, options = BUNDLES[name]
    if not (out / name).is_dir():
        folder, adapter = _sources(base, out)
        export = [_EPTX, "export", folder, adapter, "-o", out / name, "-q", *options]
        print(f"{name}: export: {timed(export)}", flush=True)
    return "record: " + timed([_EPTX, "validate", out / name, "--record", proof, "-q"])


def against(bundle: Path, proof: Path, arguments: argparse.Namespace) -> dict[str, list[Any]]:
    """The commands that validate by a proof, of those that are here."""
    found = {"Python": [arguments.eptx, "validate", bundle, "--against-proof", proof, "-q"]}
    program = next(iter(sorted(BUILD.rglob("eptx-validate"))), None)
    if program is not None:
        found["eptx-validate"] = [program, bundle, proof]
    if shutil.which("node") and (arguments.web / "node_modules").is_dir():
        found["Node"] = ["node", arguments.web / "validate.mjs", bundle, proof]
    return found


def timed(command: Sequence[Any]) -> str:
    """Runs a command: its seconds, peak memory and exit code."""
    start = time.perf_counter()
    process = os.posix_spawn(str(shutil.which(command[0])), list(map(str, command)), os.environ, file_actions=_QUIET)
    _, status, usage = os.wait4(process, 0)
    seconds, code = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
    return f"exit {code}, {seconds:.1f} s, {usage.ru_maxrss / 1e6:.2f} GB"


#: Standard output is dropped.
_QUIET = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


def _sources(base: str, out: Path) -> tuple[Path, Path]:
    """The folders of a base and of its adapter."""
    if base == "minilm":
        return minilm(), _MINILM
    if base == "smollm2":
        from tests.support.smollm2 import smollm2

        return smollm2(), _SMOLLM2
    return write_large_decoder(out / base)


if __name__ == "__main__":
    main()
