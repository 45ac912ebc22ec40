"""One cell of the matrix: an export, its bundle's outputs, and how far they are from PEFT's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from eptx.runtime import Session
from tests.matrix.made import Made, names
from tests.matrix.row import Arrays, Row
from tests.support.decoders import Steps
from tests.support.encoder_decoders import Calls

Mode = Literal["static", "conditioned"]
MODES: tuple[Mode, ...] = ("static", "conditioned")
#: Times max(1, the largest expected number).
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        distance: the largest difference from PEFT's outputs, as a part of max(1, the largest of them); None: refused.
        refusal: the message of a refusal. code: the exit code that the command has with it.
    """

    distance: float | None = None
    refusal: str = ""
    code: int = 0

    @property
    def right(self) -> bool:
        """Whether the bundle computes what PEFT does."""
        return self.distance is not None and self.distance <= TOLERANCE


def run(row: Row, made: Made, mode: Mode, folder: Path) -> Outcome:
    """Exports the adapters of a row, and compares.

    Static: adapter number 1, or the only one. Conditioned: rows of all tasks and of ``base``, mixed, in one batch.
    """
    tasks = [*names(made), "base"]
    one = min(1, len(made.adapters) - 1)
    picked = [made.adapters[one]] if mode == "static" else made.adapters
    options = ExportOptions(mode=mode, tasks=[folder.name for folder in picked])
    try:
        bundle = export_bundle(made.base, picked, folder, options)
    except EptxError as error:
        if folder.exists():
            raise AssertionError(f"{row.name}: a refused export left {folder.name}") from error
        return Outcome(None, str(error), error.exit_code)
    count = len(next(iter(made.inputs.values())))
    served = [task.name for task in bundle.manifest.tasks]
    rows = [one] * count
    if mode == "conditioned":
        order = [1, len(tasks) - 1, 0, 2]
        rows = [tasks.index(name) for name in (tasks[i % len(tasks)] for i in order) if name in served]
        rows = [rows[i % len(rows)] for i in range(count)]
    asked = None if mode == "static" else [tasks[i] for i in rows]
    got = CALLS[row.kind](bundle, made.inputs, asked, served)
    return Outcome(max(_distances(row, made, rows, got)))


def _distances(row: Row, made: Made, rows: Sequence[int], got: Arrays) -> list[float]:
    shared = [name for name in got if name in made.outputs[0]]
    if not shared:
        raise AssertionError(f"{row.name}: the bundle gives {sorted(got)}, PEFT {sorted(made.outputs[0])}")
    distances = []
    mask = made.inputs.get("decoder_attention_mask" if row.kind == "encoder-decoder" else "attention_mask")
    for name in shared:
        for index, task in enumerate(rows):
            want, have = made.outputs[task][name], got[name]
            if want.ndim == 0 or len(want) != len(rows):  # of the whole batch
                continue
            a, b = have[index].astype(np.float64), want[index].astype(np.float64)
            if mask is not None and b.shape[:1] == mask.shape[1:]:  # what padding holds is of no interest
                a, b = a[mask[index] == 1], b[mask[index] == 1]
            if a.shape != b.shape:
                a = a[..., : b.shape[-1]]  # labels that other tasks have
            distances.append(float(np.abs(a - b).max() / max(1.0, np.abs(b).max())))
    return distances


def _forward(bundle: Bundle, inputs: Arrays, tasks: list[str] | None, served: Sequence[str]) -> Arrays:
    return dict(Session(bundle).run(inputs, task=tasks))


def _towers(bundle: Bundle, inputs: Arrays, tasks: list[str] | None, served: Sequence[str]) -> Arrays:
    """All texts and images of a call have one task; each row is of the call of its own task."""
    session = Session(bundle)
    if tasks is None:
        return dict(session.run(inputs))
    calls = {task: session.run(inputs, task=task) for task in dict.fromkeys(tasks)}
    first = next(iter(calls.values()))
    return {name: np.stack([calls[task][name][row] for row, task in enumerate(tasks)]) for name in first}


def _decode(bundle: Bundle, inputs: Arrays, tasks: list[str] | None, served: Sequence[str]) -> Arrays:
    """Logits of all positions: the first call gets most of a row, the next ones a token each."""
    asked: dict[str, Any] = {} if tasks is None else {"task_id": np.array([served.index(task) for task in tasks])}
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    lengths = mask.sum(1)
    logits = None
    for rest in (0, 3):  # all at once, and with a cache that grows
        first = [row[: max(1, length - rest)].tolist() for row, length in zip(ids, lengths, strict=True)]
        steps = Steps(bundle)
        found = steps.prefill(first, **asked)["logits"]
        if logits is None:
            logits = np.zeros((*ids.shape, found.shape[-1]), np.float32)
        for row, tokens in enumerate(first):
            logits[row, : len(tokens)] = found[row, : len(tokens)]
        for step in range(rest):
            at = [min(len(tokens) + step, length - 1) for tokens, length in zip(first, lengths, strict=True)]
            more = steps.decode([int(ids[row, column]) for row, column in enumerate(at)], **asked)["logits"]
            for row, column in enumerate(at):
                if column == len(first[row]) + step:
                    logits[row, column] = more[row, -1]
    assert logits is not None
    return {"logits": logits}


def _answer(bundle: Bundle, inputs: Arrays, tasks: list[str] | None, served: Sequence[str]) -> Arrays:
    """Logits of all positions of the answer, in calls of 1, 1, 2 and more tokens."""
    asked: dict[str, Any] = {} if tasks is None else {"task_id": np.array([served.index(task) for task in tasks])}
    calls = Calls(bundle)
    text = {name: array for name, array in inputs.items() if not name.startswith("decoder_")}
    ids = text.pop("input_ids", None)
    mask = text.pop("attention_mask", None)
    calls.encode(ids, mask, **text, **asked)
    answer, start, logits = inputs["decoder_input_ids"], 0, []
    for count in (1, 1, 2, answer.shape[1]):
        tokens = answer[:, start : start + count]
        if tokens.shape[1]:
            logits.append(calls.decode(tokens)["logits"])
        start += tokens.shape[1]
    return {"logits": np.concatenate(logits, axis=1)}


#: How a bundle is called: bundle, inputs, tasks, the names of its tasks -> outputs.
CALLS = {"forward": _forward, "two towers": _towers, "decoder": _decode, "encoder-decoder": _answer}
