"""EPT, TuckA, LoRA per task, Poly, MTL-LoRA and HydraLoRA on seven tasks of GLUE: trained alike, exported, validated,
scored from the bundle and timed.

    python -m tests.bench.glue --data FOLDER --out build/glue [--stages train export latency report] [--only ept lora]

A run that was killed goes on where it stopped; each method keeps its adapter and its numbers in ``<out>/<method>``, and
the table is ``<out>/table.md``. FOLDER holds ``<task>.train.jsonl`` and ``<task>.validation.jsonl``: see
examples/glue_minilm.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from eptx.errors import EptxError
from tests.bench.glue.data import read_data
from tests.bench.glue.export import Exports, export_and_score
from tests.bench.glue.latency import latencies
from tests.bench.glue.methods import METHODS, Method
from tests.bench.glue.report import table
from tests.bench.glue.train import Plan, best_run, run_folder, train
from tests.support.minilm import minilm

STAGES = ("train", "export", "latency", "report")


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(arguments, name) for name in ("rows", "steps", "seed", "bf16")}
    if _kept(out / "settings.json", lambda: settings) != settings:
        raise SystemExit(f"{out} holds a run with other settings: give another --out")
    base = arguments.base or minilm()
    data = read_data(arguments.data, base, rows=arguments.rows, seed=arguments.seed)
    plan = Plan(base, data, out, arguments.steps, arguments.seed, arguments.bf16, log)
    log(f"{sum(map(len, data.train.values()))} training rows, {sum(map(len, data.valid.values()))} validation rows")
    chosen = [method for method in METHODS if method.name in arguments.only]
    if "train" in arguments.stages:
        for rate, method in itertools.product(arguments.rates, chosen):
            found = _kept(run_folder(out, method, rate) / "train.json", partial(train, plan, method, rate))
            log(f"{method.name} {rate:g}: loss {found['held_out']:.4f} of held-out rows, {found['steps']} steps")
    best = {method: best_run(out, method, arguments.rates) for method in METHODS}
    runs = {method: run for method, run in best.items() if run is not None}
    if "export" in arguments.stages:
        _export(Exports(base, arguments.data, data, log), {m: run for m, run in runs.items() if m in chosen})
    if "latency" in arguments.stages:
        found = latencies(base, out, runs, pairs=arguments.pairs, threads=arguments.threads)
        (out / "latency.json").write_text(json.dumps(found, indent=1) + "\n")
    if "report" in arguments.stages:
        text = table(out, runs)
        (out / "table.md").write_text(text)
        print(text)


def _export(given: Exports, runs: Mapping[Method, Path]) -> None:
    """Every bundle of these trainings; one that cannot be made is named, and tried again by the next run."""
    for method, run in runs.items():
        for variant in method.variants:
            try:
                file = run / f"{variant.name}.json"
                found = _kept(file, partial(export_and_score, given, method, run, variant))
            except EptxError as error:
                log(f"{method.name}, {variant.title}: {error}")
                continue
            passed = "passed" if found["validated"] else f"FAILED: {found['reason']}"
            log(f"{method.name}, {variant.title}: validation {passed}")


def log(line: str) -> None:
    """With the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is in the file, or is made now and kept there."""
    if not file.exists():
        found = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n")
    result: dict[str, Any] = json.loads(file.read_text())
    return result


def _arguments() -> argparse.Namespace:
    names = [method.name for method in METHODS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.glue", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of <task>.<split>.jsonl")
    parser.add_argument("--out", type=Path, default=Path("build/glue"))
    parser.add_argument("--base", type=Path, help="transformers folder of all-MiniLM-L6-v2")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--rows", type=int, default=1600, help="training rows of each task")
    parser.add_argument("--steps", type=int, help="at most so many (default: one pass over the rows)")
    parser.add_argument(
        "--rates", nargs="+", type=float, default=[1e-3, 3e-3], help="learning rates, among which held-out rows choose"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast in training")
    parser.add_argument("--threads", type=int, default=2, help="of training and of the timed sessions")
    parser.add_argument("--pairs", type=int, default=60, help="of timed runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
