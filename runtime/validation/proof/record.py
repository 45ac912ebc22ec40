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
from eptx.runtime.validation.expectation import Expectation
from eptx.runtime.validation.expected import Proved, Whole
from eptx.runtime.validation.proof.binding import bound
from eptx.runtime.validation.proof.content import Proof, write_proof
from eptx.runtime.validation.report.report import Report
from eptx.runtime.validation.running.instrumented import InstrumentedModel
from eptx.runtime.validation.values import Sampled, sample

#: Bytes that the samples may take, of an encoder and of a model that generates. What a proof holds besides (inputs,
#: names, noise floors) is a tenth of it for a small model.
_ROOM, _ROOM_GENERATES = 4_200_000, 16_000_000
_NUMBER = 8
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


def columns_for(manifest: Manifest, batches: Sequence[Batch]) -> int:
    """How many numbers of each place a proof of these batches may hold, so that the file stays small."""
    modules = len(manifest.modules) + (len(manifest.encoder.modules) if manifest.encoder is not None else 0)
    outputs = sum(not spec.name.startswith(PRESENT) for spec in manifest.outputs)
    places = 0
    for batch in batches:
        kept = batch.kept
        positions = batch.rows * batch.length if kept is None else int(kept.sum())
        places += positions * (outputs + (modules if batch.inside else 0))
    room = _ROOM if manifest.generation is None else _ROOM_GENERATES
    return max(1, min(_MOST, room // (_NUMBER * max(1, places))))


def _sampled(known: Whole, columns: int) -> Proved:
    """A sample of one batch's results, with so many numbers of each place."""

    def of(values: Mapping[str, np.ndarray]) -> dict[str, Sampled]:
        # greedy tokens are chosen by the largest logits
        return {name: sample(array, known.batch, columns, largest=name == LOGITS) for name, array in values.items()}

    outputs, inner, modules = (of(values) for values in (known.outputs, known.inner, known.modules))
    return Proved(known.batch, outputs, inner, modules, known.compared, known.groups, known.task)
