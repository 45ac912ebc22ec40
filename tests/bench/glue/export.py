"""From a trained adapter to a bundle that is validated, and scored on the rows that the trained model was scored on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

import eptx
from eptx import Bundle, ExportOptions, Search, Session, ValidateOptions
from eptx.peft import TaskHeadBank
from eptx.runtime.measure import Source
from examples.glue_minilm.data import read_rows
from tests.bench.export import base_bytes
from tests.bench.glue.classifier import metrics
from tests.bench.glue.data import TASKS, Data, Row, batches, own
from tests.bench.glue.methods import HEADS, Method, Variant, add_heads
from tests.support.minilm import EXAMPLE

#: Rows of every task that validation reads beside what it makes itself, and that freeze a route.
_VALIDATED, _CALIBRATED = 8, 64


@dataclass(frozen=True)
class Exports:
    """What all exports share.

    Attributes:
        base: transformers folder. folder: GLUE's rows. data: the same, tokenized.
        log: told what happens.
    """

    base: Path
    folder: Path
    data: Data
    log: Callable[[str], None]


def export_and_score(given: Exports, method: Method, run: Path, variant: Variant) -> dict[str, Any]:
    """Exports a method's adapters as one bundle; its bytes, its validation, and its metrics beside the model's."""
    data, adapters = given.data, _adapters(run, method)
    start = time.monotonic()
    precision: Any = Search(data=[Source(_calibration(given.folder))], only="fp32") if variant.frozen else "fp32"
    options = ExportOptions(mode=variant.mode, routing=variant.routing, precision=precision)
    bundle: Bundle = eptx.export(given.base, adapters, run / variant.name, options)
    seconds = time.monotonic() - start
    given.log(f"{method.name}, {variant.title}: exported in {seconds:.0f} s")
    settings = ValidateOptions(base=given.base, adapters=adapters, data=EXAMPLE / "samples.jsonl", rows=_VALIDATED)
    report = eptx.validate(bundle.path, settings)
    of_model = load_arrays(run / "logits.safetensors")
    of_bundle = bundle_logits(Session(bundle, threads=1), data.valid, data.tokenizer)
    apart = {task: float(np.abs(of_bundle[task] - of_model[task]).max()) for task in TASKS}
    same = sum(int((_labels(of_bundle[task]) == _labels(of_model[task])).sum()) for task in TASKS)
    return {
        "bytes": bundle.size,
        "bytes_over_base": bundle.size / base_bytes(given.base),
        "export_seconds": seconds,
        "validated": report.passed,
        "reason": report.reason,
        "tasks": metrics(of_bundle, data.valid),
        "rows": sum(map(len, data.valid.values())),
        "same_answer": same,
        "largest_difference_of_logits": max(apart.values()),
    }


def _calibration(folder: Path) -> list[dict[str, Any]]:
    """Training rows of every task."""
    rows = (row for task in TASKS for row in read_rows(folder, task, "train")[:_CALIBRATED])
    return [{name: value for name, value in row.items() if name != "label" and value is not None} for row in rows]


def _adapters(run: Path, method: Method) -> list[Path]:
    """The folders to export; what a released code saved is converted, and its heads are put beside the result."""
    folders = [method.folder(run, tasks) for tasks in method.parts]
    if method.converted is None:
        return folders
    made = run / "converted"
    shutil.rmtree(made, ignore_errors=True)
    eptx.convert(folders[0], made, method.converted)
    add_heads(made, TaskHeadBank.from_tensors(load_file(run / HEADS), list(TASKS)))
    return [made]


def bundle_logits(session: Session, rows: Mapping[str, Sequence[Row]], tokenizer: Any) -> dict[str, np.ndarray]:
    """Task -> the bundle's logits [rows, labels], in batches that mix tasks."""
    order = [(task, index) for task in TASKS for index in range(len(rows[task]))]
    order.sort(key=lambda place: len(rows[place[0]][place[1]]["input_ids"]))
    given = [own(rows[task][index], list(TASKS).index(task)) for task, index in order]
    wanted = {spec.name for spec in session.inputs}
    logits = []
    for batch in batches(given, tokenizer):
        arrays = {name: tensor.numpy() for name, tensor in batch.items() if name in wanted}
        logits += [*session.run(arrays, task=[list(TASKS)[task] for task in batch["task"].tolist()])["logits"]]
    found = {task: np.zeros((len(rows[task]), len(names)), np.float32) for task, names in TASKS.items()}
    for (task, index), row in zip(order, logits, strict=True):
        found[task][index] = row[: found[task].shape[1]]
    return found


def _labels(logits: np.ndarray) -> np.ndarray:
    """The label that counts, or the value to two decimals."""
    labels: np.ndarray = logits[:, 0].round(2) if logits.shape[1] == 1 else logits.argmax(1)
    return labels
