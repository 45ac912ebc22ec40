"""The differences of results of the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from eptx.exporter.trained.output import LACKING
from eptx.runtime.validation.distance import Kind
from eptx.runtime.validation.expected import Whole


def less(one: Whole, other: Whole) -> Whole:
    """One batch's results less others of it."""
    return replace(
        one,
        outputs={name: _less(one.outputs[name], array) for name, array in other.outputs.items()},
        inner={name: one.inner[name] - array for name, array in other.inner.items()},
        modules={name: one.modules[name] - array for name, array in other.modules.items()},
    )


def _less(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The difference; zero where one of the two lacks the token of a logit."""
    difference: np.ndarray = one - other
    difference[(one <= LACKING) | (other <= LACKING)] = 0.0
    return difference


def arrays_of(values: Whole) -> Iterator[tuple[Kind, str, np.ndarray]]:
    """Every module's and output's array."""
    for name, array in values.modules.items():
        yield "module", name, array
    for name, array in (*values.outputs.items(), *values.inner.items()):
        yield "output", name, np.where(array <= LACKING, 0.0, array)
