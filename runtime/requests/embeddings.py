"""Embeddings as a caller asks for them: of which output, in what form, and of any number of rows, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eptx._one_line import shown
from eptx.bundle import Manifest
from eptx.errors import RequestError
from eptx.manifest.names import BASE_TASK, EMBEDDING, HIDDEN, POOLINGS, TASK_ID
from eptx.runtime.outputs import Array
from eptx.runtime.requests.rows import rows_in
from eptx.runtime.requests.tokenizer import Text, Tokenizer, is_text

#: The most tokens of one run, padding included, unless a single row has more.
TOKENS = 1 << 12
_ALL = 1 << 62


@dataclass(frozen=True)
class EmbeddingForm:
    """The form of embeddings; `form_of` makes one.

    Attributes:
        pooling: how the outputs of tokens become one vector, of `POOLINGS`; None: the bundle's own output.
        normalize: whether each vector is divided by its length.
        dimensions: how many numbers are kept, the first ones; None: all.
    """

    pooling: str | None
    normalize: bool
    dimensions: int | None

    def vectors(self, outputs: Mapping[str, Array], arrays: Mapping[str, Array]) -> Array:
        """The embeddings [rows, dimensions], float32.

        Args:
            outputs: of the graph.
            arrays: the inputs that they answer.
        """
        found = np.asarray(outputs[EMBEDDING] if self.pooling is None else _pooled(self.pooling, outputs, arrays))
        found = found[:, : self.dimensions].astype(np.float64)
        if self.normalize:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return np.ascontiguousarray(found, np.float32)

    def join(self, answers: Iterable[tuple[Sequence[int], Mapping[str, Array], Mapping[str, Array]]]) -> Array:
        """The embeddings of several batches in the order of the request.

        Args:
            answers: of each batch, the numbers of its rows, the outputs, and the inputs.
        """
        found = [(rows, self.vectors(outputs, arrays)) for rows, outputs, arrays in answers]
        order = np.argsort(np.concatenate([rows for rows, _ in found]))
        return np.ascontiguousarray(np.concatenate([vectors for _, vectors in found])[order])


def batches_of(
    manifest: Manifest,
    inputs: Mapping[str, Any] | Text,
    task: str | Sequence[str] | None,
    check: Callable[[Any, Any], dict[str, Array]],
    tokenizer: Callable[[], Tokenizer],
) -> Iterator[tuple[Sequence[int], dict[str, Array]]]:
    """The rows of a request in batches: the numbers of a batch's rows, and its checked arrays.

    Args:
        manifest: of the bundle. Where rows share a route, they stay together.
        inputs: of `Session.embed`.
        task: likewise.
        check: `Session.check`.
        tokenizer: what gives the bundle's.

    Raises:
        RequestError: the inputs or the tasks do not fit.
    """
    if task is None and not (isinstance(inputs, Mapping) and TASK_ID in inputs):
        task = next((each.name for each in manifest.tasks if each.name == BASE_TASK), None)
    if not is_text(inputs):
        arrays = check(inputs, task)
        rows = rows_in(arrays)
        length = max((_length(array) for array in arrays.values() if array.ndim > 1), default=1)
        most = rows if manifest.rows_share_route else max(1, TOKENS // length)
        for start in range(0, rows, most):
            part = range(start, min(start + most, rows))
            yield part, {name: np.ascontiguousarray(array[part.start : part.stop]) for name, array in arrays.items()}
        return
    texts = [inputs] if isinstance(inputs, str) else list(inputs)
    names = task if isinstance(task, list | tuple) else None
    if names is not None and len(names) != len(texts):
        raise RequestError(f"{len(names)} tasks for a batch of {len(texts)}; give one name, or one per row")
    for places, made in tokenizer().batches(texts, _ALL if manifest.rows_share_route else TOKENS):
        yield places, check(made, task if names is None else [names[place] for place in places])


def _length(array: Array) -> int:
    """The tokens of a row; of an image about as many as it has patches of 16 x 16."""
    return int(array.shape[1] if array.ndim != 4 else max(1, array.shape[2] * array.shape[3] // 256))


def form_of(
    manifest: Manifest, pooling: str | None = None, *, normalize: bool = True, dimensions: int | None = None
) -> EmbeddingForm:
    """The form that a caller asks a bundle for.

    Raises:
        RequestError: the bundle does not give it, or an argument is out of range.
    """
    shapes = {spec.name: spec.shape for spec in manifest.outputs}
    if pooling is not None and pooling not in POOLINGS:
        raise RequestError(f"no pooling {shown(pooling)}; there are {', '.join(POOLINGS)}")
    if pooling is None and manifest.embedding is None:
        can = f": name a pooling, one of {', '.join(POOLINGS)}" if HIDDEN in shapes else ""
        raise RequestError(f"this bundle has no output {EMBEDDING}{can or '; it has ' + ', '.join(shapes)}")
    if pooling is not None and len(shapes.get(HIDDEN, ())) != 3:
        raise RequestError(f"this bundle has no output {HIDDEN} to pool; it has {', '.join(shapes)}")
    size = shapes[EMBEDDING if pooling is None else HIDDEN][-1]
    if dimensions is not None:
        most = size if isinstance(size, int) else None
        if type(dimensions) is not int or dimensions < 1 or (most is not None and dimensions > most):
            raise RequestError(f"dimensions must be 1 to {most or 'those of the model'}, not {shown(dimensions)}")
    return EmbeddingForm(pooling, normalize, dimensions)


def _pooled(pooling: str, outputs: Mapping[str, Array], arrays: Mapping[str, Array]) -> Array:
    hidden = outputs[HIDDEN]
    mask = arrays.get("attention_mask")
    counts = np.ones(hidden.shape[:2], bool) if mask is None else mask != 0
    return np.stack([_POOL[pooling](row[own].astype(np.float64)) for row, own in zip(hidden, counts, strict=True)])


def _weighted(tokens: Any, weights: Any) -> Array:
    return np.asarray((tokens * weights[:, None]).sum(0) / weights.sum())


#: Each vector of a row's tokens that count [tokens, width] -> one vector.
_POOL: dict[str, Callable[[Array], Array]] = {
    "cls": lambda tokens: tokens[0],
    "max": lambda tokens: tokens.max(0),
    "mean": lambda tokens: tokens.mean(0),
    "mean_sqrt_len_tokens": lambda tokens: tokens.sum(0) / np.sqrt(len(tokens)),
    "weightedmean": lambda tokens: _weighted(tokens, np.arange(1, len(tokens) + 1)),
    "lasttoken": lambda tokens: tokens[-1],
}
