"""How far honest bundles stay from the limit, by threads and by ways to run: the figures of docs/validation.md.

    python -m tests.bench.margins BUNDLE.. [--threads 1 2] [--json FILE]

The bundles are ones that are known to be right. What the reference computes is computed once for each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.exporter.validation import run as validation
from eptx.exporter.validation.bundle import backends
from eptx.runtime.validation.comparison.results import BackendReport
from eptx.runtime.validation.distance import LIMIT


@dataclass(frozen=True)
class Margin:
    """Of one bundle, run in one way.

    Attributes:
        backend: provider and operators. threads: of ONNX Runtime.
        median, most: of the ratios of all tasks' modules and outputs. where: the task and name of the largest.
    """

    backend: str
    threads: int
    median: float
    most: float
    where: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.margins", description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for bundle in arguments.bundles:
        for margin in margins(bundle, arguments.threads):
            found.setdefault(bundle.name, []).append(vars(margin))
            figures = f"median {margin.median:.2f}, largest {margin.most:.2f} of {LIMIT:g} at {margin.where}"
            print(f"{bundle.name}, {margin.backend}, {margin.threads} threads: {figures}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def margins(bundle: Path, threads: Sequence[int]) -> Iterator[Margin]:
    """Validates a bundle once for each number of threads."""
    known: list[Any] = []

    def remembered(*arguments: Any) -> Any:
        if not known:
            known.append(run_reference(*arguments))
        return known[0]

    run_reference = validation.run_reference
    for count in threads:
        with mock.patch.object(validation, "run_reference", remembered), _threads(count):
            report = validate_bundle(bundle, ValidateOptions(providers=["cpu"]))
        yield from (_margin(provider, count) for provider in report.providers)


def _margin(provider: BackendReport, threads: int) -> Margin:
    ratios = {
        f"{task.task}, {name}": measured.ratio
        for task in provider.tasks
        for name, measured in (*task.modules.items(), *task.outputs.items())
    }
    where = max(ratios, key=lambda name: ratios[name])
    return Margin(provider.name, threads, float(np.median(list(ratios.values()))), ratios[where], where)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    options = backends.session_options

    def limited(*arguments: Any) -> Any:
        result = options(*arguments)
        result.intra_op_num_threads = count
        return result

    with mock.patch.object(backends, "session_options", limited):
        yield


if __name__ == "__main__":
    main()
