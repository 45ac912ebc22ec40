"""Makes one batch of several requests' arrays, and splits its outputs again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from eptx.bundle import Manifest, Task
from eptx.manifest.names import TASK_ID
from eptx.runtime.outputs import Array, Outputs
from eptx.runtime.requests.rows import pad_rows

_IDS, _MASK = "input_ids", "attention_mask"
_PADDED = frozenset((_IDS, _MASK, "token_type_ids"))
_BATCH, _LENGTH = "batch", "length"

Arrays = Mapping[str, Array]


def row_length(arrays: Arrays) -> int:
    """The tokens of each row, padding and all choices included; 1 if a model reads something else."""
    return int(np.prod(arrays[_IDS].shape[1:])) if _IDS in arrays else 1


class Collator:
    """Collates the requests of one bundle.

    Rows that differ in length are padded on the right, where the mask hides them. If the model has no mask, or reads
    more than tokens, only arrays of the same shape share a batch. Requests of a bundle whose rows share a route never
    share a batch.

    Args:
        manifest: the bundle's.
        pad: the token to pad with.

    Attributes:
        pads: whether rows of different lengths may share a batch.
    """

    def __init__(self, manifest: Manifest, pad: int = 0) -> None:
        names = {spec.name for spec in manifest.inputs}
        dimensions = {d for spec in manifest.outputs for d in spec.shape[1:] if isinstance(d, str)}
        self._collates = not manifest.rows_share_route and all(
            spec.shape[:1] == (_BATCH,) for spec in (*manifest.inputs, *manifest.outputs)
        )
        flat = all(spec.shape[1:] == (_LENGTH,) for spec in manifest.inputs if spec.name != TASK_ID)
        self.pads = {_IDS, _MASK} <= names <= {*_PADDED, TASK_ID} and flat and dimensions <= {_LENGTH}
        self._fill = {_IDS: pad}
        self._lengths = {
            spec.name: [axis for axis, d in enumerate(spec.shape) if d == _LENGTH] for spec in manifest.outputs
        }
        self._tasks = {task.name: task for task in manifest.tasks}

    def batch_key(self, arrays: Arrays) -> Hashable | None:
        """Two requests may share a batch if their keys are equal; None: the request is answered alone."""
        if not self._collates:
            return None
        return tuple(
            (name, array.dtype.str, None if self._is_padded(name) else array.shape[1:])
            for name, array in sorted(arrays.items())
        )

    def collate(self, requests: Sequence[Arrays]) -> dict[str, Array]:
        """One batch of all requests' rows, in this order."""
        if len(requests) == 1:
            return dict(requests[0])
        return {name: self._joined(name, [arrays[name] for arrays in requests]) for name in requests[0]}

    def split(self, outputs: Outputs, requests: Sequence[Arrays]) -> list[Outputs]:
        """Each request's rows of the batch's outputs, without the padding."""
        if len(requests) == 1:
            return [outputs]
        width = max(map(row_length, requests))
        parts, start = [], 0
        for arrays in requests:
            stop = start + len(next(iter(arrays.values())))
            cut = row_length(arrays) if row_length(arrays) < width else None
            rows = [self._tasks.get(name) or Task(name, -1) for name in outputs.tasks[start:stop]]
            parts.append(Outputs({n: self._part(n, a[start:stop], cut) for n, a in outputs.items()}, rows, arrays))
            start = stop
        return parts

    def _is_padded(self, name: str) -> bool:
        return self.pads and name in _PADDED

    def _joined(self, name: str, arrays: Sequence[Array]) -> Array:
        if not self._is_padded(name):
            return np.concatenate(arrays)
        return pad_rows([row for array in arrays for row in array], self._fill.get(name, 0), arrays[0].dtype)

    def _part(self, name: str, array: Array, cut: int | None) -> Array:
        for axis in self._lengths[name] if cut is not None else ():
            array = array[(slice(None),) * axis + (slice(cut),)]
        return array
