"""The smallest form of an update: a vector, factors of a low rank, or neither.

Factors are worth it while they hold fewer numbers than the weight: r * (in + out) < in * out. Past that a row of a
conditioned bundle would read more for its update than for the layer itself.
"""

from __future__ import annotations

import numpy as np

from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.peft.adapter import FullUpdate
from eptx.exporter.methods.peft.layers import Linear

#: Some of PEFT's layers compute in float32. What an update has below this part of itself, or of the weight below what
#: rounding that to float32 changes, is rounding. Bundles store both in float32.
UPDATE_TOLERANCE = 2.0**-22
WEIGHT_TOLERANCE = 2.0**-24
#: Differences below this part of the weight are float64's rounding.
_NOTHING = 2.0**-44
_FIRST_SKETCH = 32


def smallest(layer: Linear) -> LinearUpdate | FullUpdate | None:
    """The update of a layer; None where nothing changes."""
    shift = layer.shift if np.abs(layer.shift).max(initial=0) > 0 else None
    difference = layer.adapted - layer.base
    if np.linalg.norm(difference) <= _NOTHING * np.linalg.norm(layer.base):
        return None if shift is None else LinearUpdate(shift=shift)
    gain = _gain(layer.base, layer.adapted)
    if gain is not None:
        return LinearUpdate(gain=gain, shift=shift)
    gain = _gain(layer.base.T, layer.adapted.T)
    if gain is not None:
        return LinearUpdate(input_gain=gain, shift=shift)
    factors = low_rank(difference, _rounding(layer.adapted))
    return FullUpdate(difference, shift) if factors is None else LinearUpdate(*factors, shift=shift)


def _gain(base: np.ndarray, adapted: np.ndarray) -> np.ndarray | None:
    """What each row of a weight is multiplied by; None if that is not all that is done to it."""
    size = np.square(base).sum(1)
    gain = np.divide((base * adapted).sum(1), size, out=np.ones(len(size)), where=size > 0)
    rest = np.linalg.norm(adapted - gain[:, None] * base)
    least = max(UPDATE_TOLERANCE * np.linalg.norm(adapted - base), WEIGHT_TOLERANCE * np.linalg.norm(adapted))
    return gain if rest <= least else None


def _rounding(weight: np.ndarray) -> float:
    """The largest singular value of what rounding to float32 changes: that of a random matrix of such numbers."""
    rows, columns = weight.shape
    size = np.linalg.norm(weight) / np.sqrt(rows * columns)
    return float(WEIGHT_TOLERANCE * size * (np.sqrt(rows) + np.sqrt(columns)))


def low_rank(matrix: np.ndarray, least: float = 0.0) -> tuple[np.ndarray, np.ndarray] | None:
    """Factors a [r, in] and b [out, r] of a matrix [out, in]; None if they hold as many numbers as it does.

    The range of the matrix is that of its products with random vectors, once there are more of them than its rank:
    an SVD of the whole would take minutes for a large layer.

    Args:
        matrix: the difference of two weights.
        least: singular values up to this are rounding.
    """
    rows, columns = matrix.shape
    most = (rows * columns - 1) // (rows + columns)
    random = np.random.default_rng(0)
    size = _FIRST_SKETCH
    while True:
        size = min(size, rows, columns)
        basis = np.linalg.qr(matrix @ random.standard_normal((columns, size)))[0]
        left, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
        rank = int((values > max(UPDATE_TOLERANCE * values[0], least)).sum())
        if rank > most:
            return None
        if rank < size or size == min(rows, columns):
            return values[:rank, None] * right[:rank], basis @ left[:, :rank]
        size *= 2
