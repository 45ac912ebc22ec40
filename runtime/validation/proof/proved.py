"""What a proof says of one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.expected import Known, rows_of
from eptx.runtime.validation.values import Sampled, Values, sample

#: An output whose largest numbers are kept besides: greedy tokens are chosen by them.
_LOGITS = "logits"


@dataclass(frozen=True)
class Proved:
    """The expected results of one batch, sampled; the attributes are those of `Expected`."""

    batch: Batch
    outputs: Mapping[str, Sampled]
    inner: Mapping[str, Sampled]
    modules: Mapping[str, Sampled]
    compared: np.ndarray
    groups: Sequence[Mapping[str, np.ndarray]]
    task: np.ndarray

    def rows_of(self, task: str) -> np.ndarray:
        """bool [rows]: the compared rows of a task (``auto``: those to infer)."""
        return rows_of(self, task)


def proved(known: Known, columns: int) -> Proved:
    """A sample of one batch's results, with so many numbers of each place."""

    def sampled(values: Mapping[str, Values]) -> dict[str, Sampled]:
        found = {}
        for name, value in values.items():
            assert isinstance(value, np.ndarray)
            found[name] = sample(value, known.batch, columns, largest=name == _LOGITS)
        return found

    outputs, inner, modules = (sampled(values) for values in (known.outputs, known.inner, known.modules))
    return Proved(known.batch, outputs, inner, modules, known.compared, known.groups, known.task)
