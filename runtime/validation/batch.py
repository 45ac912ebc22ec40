"""One batch: the rows that the bundle and the reference are fed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eptx.bundle import Manifest
from eptx.errors import BundleError
from eptx.manifest.names import AUTO_TASK, INFER, TASK_ID

#: The tokens of an encoder-decoder's answer, beside those of the text.
ANSWER_IDS = "decoder_input_ids"
#: Stands for a token that the bundle will choose.
CHOSEN = -1


@dataclass(frozen=True)
class Batch:
    """One call of the model.

    Attributes:
        name: what the report calls it.
        arrays: graph input -> array [rows, ...], ``task_id`` not among them.
        tasks: each row's task name; ``auto`` where the model infers it.
        seed: of the random numbers; None for the user's data.
        labels: each row's label in the user's data, None without one.
        measures_effect: whether the adapter's own effect is measured on it; that takes one more run of the reference.
        prompt: of a model that generates: how many columns hold the prompts, padded on either side; the others hold the
            tokens that follow one by one.
        greedy: whether the bundle chooses those tokens; they are `CHOSEN` until it has.
        inside: whether the modules are compared too; of a very long row only the outputs are.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    tasks: tuple[str, ...]
    seed: int | None = None
    labels: tuple[Any, ...] = field(default=())
    measures_effect: bool = False
    prompt: int | None = None
    greedy: bool = False
    inside: bool = True

    @property
    def rows(self) -> int:
        """How many rows the batch has."""
        return len(self.tasks)

    @property
    def length(self) -> int:
        """How many columns its tokens have; of an encoder-decoder, those of the answer."""
        tokens = self.arrays.get(ANSWER_IDS, next(iter(self.arrays.values())))
        return int(tokens.shape[1])

    @property
    def read(self) -> dict[str, np.ndarray]:
        """Of an encoder-decoder: what the encoder reads."""
        return {name: array for name, array in self.arrays.items() if name != ANSWER_IDS}

    @property
    def kept(self) -> np.ndarray | None:
        """bool [rows, length], the positions that are not padding; None where there is no mask, or one per choice."""
        mask = self.arrays.get("attention_mask")
        return None if mask is None or mask.ndim != 2 else mask.astype(bool)


def rows_alone(batch: Batch) -> Iterator[Batch]:
    """The rows of a padded batch one by one, without padding; a batch without padding as it is."""
    kept = batch.kept
    if kept is None or kept.all():
        yield batch
        return
    for row in range(batch.rows):
        columns, prompt = np.flatnonzero(kept[row]), batch.prompt
        masked = kept.shape[1:]
        arrays = {
            name: array[row : row + 1]
            if name == ANSWER_IDS or array.shape[1:2] != masked
            else array[row : row + 1, columns]
            for name, array in batch.arrays.items()
        }
        if prompt is not None and ANSWER_IDS not in batch.arrays:
            prompt = int((columns < prompt).sum())
        yield replace(batch, arrays=arrays, tasks=batch.tasks[row : row + 1], labels=(), prompt=prompt)


def task_ids(batch: Batch, ids: Mapping[str, int]) -> np.ndarray:
    """The rows' task ids int64 [rows], -1 where the model infers the task."""
    return np.array([INFER if name == AUTO_TASK else ids[name] for name in batch.tasks], dtype=np.int64)


def bundle_ids(manifest: Manifest, batch: Batch) -> np.ndarray | None:
    """The rows' task ids in the bundle, int64 [rows], or [1] where it takes one for all; None if it takes none.

    Raises:
        BundleError: it lacks one of the tasks.
    """
    taken = next((spec for spec in manifest.inputs if spec.name == TASK_ID), None)
    if taken is None:
        return None
    known = {task.name: task.id for task in manifest.tasks}
    unknown = next((name for name in batch.tasks if name != AUTO_TASK and name not in known), None)
    if unknown is not None:
        raise BundleError(f"eptx.json names no task {unknown!r}, which the adapter has")
    ids = task_ids(batch, known)
    return ids if isinstance(taken.shape[0], str) else ids[:1]


def spans(batch: Batch) -> list[tuple[int, int]]:
    """The columns of every call, as [start, stop): those of the prompt, then one token after the other."""
    if batch.prompt is None:
        return [(0, batch.length)]
    return [(0, batch.prompt), *((at, at + 1) for at in range(batch.prompt, batch.length))]
