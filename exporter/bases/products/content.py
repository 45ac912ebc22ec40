"""Finding a weight inside a product by what it holds.

Exact where the graph stores what the checkpoint stores; a weight stored in a narrower type must be the
checkpoint's rounded to that type. Converters to float16 also lift tiny values to 1e-7 (onnxconverter-common),
so float16 allows that much more; a quantized weight may be off by half a step.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from eptx.exporter.bases.products.products import Product


def columns_of(product: Product, weight: np.ndarray) -> list[tuple[int, int]]:
    """The output columns of ``product`` that hold ``weight`` [out, in].

    Returns:
        (start, stop) pairs: none when the weight is not there, the first two when it repeats.
    """
    wide, out = product.shape[1], weight.shape[0]
    if product.shape[0] != weight.shape[1] or wide < out:
        return []
    matrix = product.matrix()
    if matrix is None:
        return []
    compare = _Comparison(matrix, product.step())
    # cheap looks first: one number, then one row
    starts = np.flatnonzero(compare.equal(np.arange(wide - out + 1), weight[:1], most=1))
    starts = starts[compare.equal(starts, weight[:1])]
    found = []
    for start in starts.tolist():
        if compare.equal(slice(start, start + out), weight).all():
            found.append((start, start + out))
        if len(found) == 2:
            break
    return found


def equal_at(product: Product, weight: np.ndarray, start: int) -> bool:
    """Whether the output columns from ``start`` on hold ``weight`` [out, in]; False if unreadable."""
    matrix = product.matrix()
    rows = slice(start, start + weight.shape[0])
    return matrix is not None and bool(_Comparison(matrix, product.step()).equal(rows, weight).all())


class _Comparison:
    """Compares rows of a stored matrix [out, in] with rows of a checkpoint's weight."""

    def __init__(self, matrix: np.ndarray, step: np.ndarray | float) -> None:
        self._matrix = matrix
        self._step = np.broadcast_to(np.asarray(step), matrix.shape) if np.ndim(step) else None

    def equal(self, rows: slice | np.ndarray, weight: np.ndarray, *, most: int | None = None) -> np.ndarray:
        """Which rows equal those of ``weight`` (or its only row), in the first ``most`` columns."""
        stored, wanted = self._matrix[rows, :most], weight[:, :most]
        if self._step is not None:
            return _whole_rows(np.abs(stored - wanted) <= self._step[rows, :most] * 1.001)
        if stored.dtype == np.float16:
            wanted = wanted.astype(np.float32)
            return _whole_rows(np.abs(stored.astype(np.float32) - wanted) <= np.abs(wanted) * 2.0**-11 + 1.01e-7)
        if stored.dtype == ml_dtypes.bfloat16 or wanted.dtype == np.float64:
            wanted = wanted.astype(stored.dtype)
        return _whole_rows(stored == wanted)


def _whole_rows(equal: np.ndarray) -> np.ndarray:
    whole: np.ndarray = np.logical_and.reduce(equal, axis=1)
    return whole
