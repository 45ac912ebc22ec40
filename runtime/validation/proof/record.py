"""Records a proof: what the reference gave, sampled so that the file stays small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eptx._version import __version__
from eptx.bundle import Bundle, Manifest
from eptx.manifest.names import PRESENT
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.comparison.answers import LOGITS
from eptx.runtime.validation.distance import Kind
from eptx.runtime.validation.expectation import Expectation
from eptx.runtime.validation.expected import Proved, Whole
from eptx.runtime.validation.proof.binding import bound
from eptx.runtime.validation.proof.content import Proof, write_proof
from eptx.runtime.validation.report.report import Report
from eptx.runtime.validation.running.instrumented import InstrumentedModel
from eptx.runtime.validation.values import LARGEST, Sampled, sample

#: Bytes that a proof may have, of an encoder and of a model that generates.
_LIMIT, _LIMIT_GENERATES = 5_000_000, 20_000_000
#: Bytes of what a proof says: of a number of a sample; and, with names as long as those of transformers' models, of a
#: value of a batch, of the noise floors of a task's module or output, and of a module.
_NUMBER, _VALUE, _FLOOR, _MODULE = 8, 350, 450, 1200
#: More numbers of a place than this find nothing that fewer do not.
_MOST = 64


def record_proof(
    path: Path, bundle: Bundle, report: Report, expectation: Expectation[np.ndarray], instrumented: InstrumentedModel
) -> int:
    """Writes the proof of a bundle that has passed, and returns how many bytes it has.

    The rows of a user's data are not in it: a proof may be given to anyone.

    Args:
        path: the file.
        bundle: the bundle.
        report: what the validation found.
        expectation: what the reference gave, whole.
        instrumented: what makes the inside of the bundle's models visible.

    Raises:
        UsageError: the file cannot be written.
        LimitError: the disk is full.
    """
    floors = expectation.sampled
    assert floors is not None and floors.columns is not None
    sampled: Expectation[Sampled] = Expectation(
        batches=[_sampled(known, floors.columns) for known in expectation.batches if known.batch.seed is not None],
        floors=floors,
        experts=expectation.experts,
        unclear=expectation.unclear,
        redrawn=expectation.redrawn,
        folded=expectation.folded,
        modules=expectation.modules,
        class_name=expectation.class_name,
    )
    proof = Proof(
        bundle=bound(bundle),
        expectation=sampled,
        instrumented=instrumented,
        checks=[replace(check, why=check.why or "where the proof was recorded") for check in report.checks],
        drops=report.drops,
        divergences=report.divergences,
        generator=f"eptx {__version__}",
    )
    return write_proof(path, proof)


def columns_for(
    manifest: Manifest, batches: Sequence[Batch], instrumented: InstrumentedModel, limit: int | None = None
) -> int:
    """How many numbers of each place a proof of these batches may hold, so that the file stays small.

    Args:
        manifest: of the bundle.
        batches: what it is validated on.
        instrumented: what makes the inside of its models visible.
        limit: how many bytes the file may have; None: `_LIMIT`, or `_LIMIT_GENERATES`.
    """
    if limit is None:
        limit = _LIMIT if manifest.generation is None else _LIMIT_GENERATES
    outputs, modules = _values(manifest)
    places = sum(_positions(batch) * (outputs + (modules if batch.inside else 0)) for batch in batches)
    return max(1, min(_MOST, _room(manifest, batches, instrumented, limit) // (_NUMBER * max(1, places))))


def _room(manifest: Manifest, batches: Sequence[Batch], instrumented: InstrumentedModel, limit: int) -> int:
    """Bytes that the samples may take: those that what a proof holds besides leaves.

    A fifth of the file's at least: images alone may be larger than that.
    """
    outputs, modules = _values(manifest)
    tasks = {task for batch in batches for task in batch.tasks}
    inputs = sum(array.nbytes for batch in batches for array in batch.arrays.values())
    said = (outputs + modules) * (len(batches) * _VALUE + len(tasks) * _FLOOR) + modules * _MODULE
    logits = 2 * _NUMBER * LARGEST * sum(map(_positions, batches))
    return max(limit // 5, limit - inputs - said - logits - _size(instrumented))


def _positions(batch: Batch) -> int:
    """How many positions of a batch are no padding."""
    kept = batch.kept
    return batch.rows * batch.length if kept is None else int(kept.sum())


def _values(manifest: Manifest) -> tuple[int, int]:
    """How many outputs and modules a bundle has."""
    modules = len(manifest.modules) + (len(manifest.encoder.modules) if manifest.encoder is not None else 0)
    return sum(not spec.name.startswith(PRESENT) for spec in manifest.outputs), modules


def _size(instrumented: InstrumentedModel) -> int:
    """Bytes of what makes the inside of a bundle's models visible."""
    inside = 0 if instrumented.encoder is None else _size(instrumented.encoder)
    return len(instrumented.added) + len(instrumented.float_activations or b"") + inside


def _sampled(known: Whole, columns: int) -> Proved:
    """A sample of one batch's results, with so many numbers of each place."""

    def of(kind: Kind, values: Mapping[str, np.ndarray]) -> dict[str, Sampled]:
        # greedy tokens are chosen by the largest logits
        return {n: sample(kind, array, known.batch, columns, largest=n == LOGITS) for n, array in values.items()}

    outputs, inner, modules = of("output", known.outputs), of("output", known.inner), of("module", known.modules)
    return Proved(known.batch, outputs, inner, modules, known.compared, known.groups, known.task)
