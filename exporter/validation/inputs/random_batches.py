"""Random batches: seeded, of several shapes and mixes of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice

import numpy as np

from eptx.bundle import Manifest
from eptx.exporter.validation.inputs.fill import TEXT, fill, tokens
from eptx.exporter.validation.inputs.vocabulary import LONGEST_INSIDE, LONGEST_ROW, UNLIMITED, Vocabulary
from eptx.manifest.names import TASK_ID
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.check import Check

_MIXED, _MANY = "mixed", "many rows"
_LENGTH, _MANY_LENGTH, _LONG = 12, 20, 64
#: Rows of the largest batch; they are short.
_MOST_ROWS = 17


def generated(manifest: Manifest, vocabulary: Vocabulary, names: Sequence[str]) -> list[Batch]:
    """The random batches of one validation.

    There is a row of each task alone; two rows of every task in one padded batch; one row of every task, all of one
    length; rows of one token and of two; one long row, and one as long as the base reads. For a bundle of a single
    task, several of its rows replace the mixtures,
    and so they do where texts and images are batches of their own, which have one task.

    Args:
        manifest: of the bundle, for its inputs.
        vocabulary: of the base.
        names: the rows' tasks: the bundle's, and ``auto`` where it infers.

    Raises:
        NotSupportedError: the graph has an input that eptx does not know how to fill.
    """
    apart = batches_apart(manifest)
    plans: list[tuple[str, tuple[str, ...], int, bool]] = [(f"{name} alone", (name,), _LENGTH, False) for name in names]
    if apart or len(names) == 1:
        for name in names:
            of = f" of {name}" if apart else ""
            plans.append((f"{_MANY}{of}, padded", (name,) * 6, _MANY_LENGTH, True))
            plans.append((f"{_MANY}{of}", (name,) * 4, _LENGTH, False))
    else:
        plans.append((f"{_MIXED}, padded", tuple(names) * 2, _MANY_LENGTH, True))
        plans.append((_MIXED, tuple(reversed(names)) + tuple(names[:1]), _LENGTH, False))
    plans.append(("long", (names[0],), _LONG, False))
    if any(spec.name in TEXT for spec in manifest.inputs):
        plans.append(("one token", _some(names[:1] if apart else names, 2), 1, False))
        plans.append(("two tokens", (names[0],) * _MOST_ROWS, 2, False))
        if _LONG < vocabulary.longest < UNLIMITED:
            plans.append(("longest", (names[0],), min(vocabulary.longest, LONGEST_ROW), False))
    measured = {_MIXED, *(name for name, *_ in plans if name.startswith(_MANY) and not name.endswith("padded"))}
    return [
        _draw(
            manifest,
            vocabulary,
            Batch(name, {}, tasks, seed, measures_effect=name in measured, inside=length <= LONGEST_INSIDE),
            length,
            padded,
        )
        for seed, (name, tasks, length, padded) in enumerate(plans)
    ]


def redraw(batch: Batch, manifest: Manifest, vocabulary: Vocabulary) -> Batch:
    """Another batch of the same shape and tasks, from the next seed."""
    assert batch.seed is not None
    length = tokens(manifest, batch.arrays)
    kept = batch.kept
    padded = kept is not None and not kept.all()
    return _draw(manifest, vocabulary, replace(batch, seed=batch.seed + 1000), length, padded)


def untried(manifest: Manifest, vocabulary: Vocabulary) -> list[Check]:
    """A check for what no random batch reaches, with the reason."""
    if not LONGEST_ROW < vocabulary.longest < UNLIMITED or all(spec.name not in TEXT for spec in manifest.inputs):
        return []
    name = f"rows of {LONGEST_ROW + 1} to {vocabulary.longest} tokens"
    return [Check(name, "unchecked", why=f"the longest row that is tried has {LONGEST_ROW} tokens")]


def batches_apart(manifest: Manifest) -> bool:
    """Whether texts and images are batches of their own, all of one task (CLIP)."""
    return len({spec.shape[0] for spec in manifest.inputs if spec.name != TASK_ID}) > 1


def _some(names: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(islice(cycle(names), count))


def _draw(manifest: Manifest, vocabulary: Vocabulary, batch: Batch, length: int, padded: bool) -> Batch:
    vocabulary = vocabulary.shared(batch.tasks)
    rng = np.random.default_rng([20260, batch.seed or 0])
    length = min(length, vocabulary.longest)
    lengths = np.full(batch.rows, length)
    if padded and length > 3:
        lengths[1:] = rng.integers(3, length + 1, batch.rows - 1)
    arrays = {
        spec.name: fill(spec, vocabulary, rng, batch.rows, lengths).astype(spec.dtype)
        for spec in manifest.inputs
        if spec.name != TASK_ID
    }
    return replace(batch, arrays=arrays)
