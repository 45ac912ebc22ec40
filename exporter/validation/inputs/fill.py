"""What an input of a graph is filled with at random, by its name and its axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eptx.bundle import Manifest, TensorSpec
from eptx.errors import NotSupportedError
from eptx.exporter.validation.inputs.vocabulary import Vocabulary

#: Free axes -> how many of their steps stand for one token of a text: 25 ms of sound at 16 kHz, or 80 ms of frames.
_STEPS = {"length": 1, "samples": 400, "frames": 8}
_CHOICES = 3
#: What is of a text, whose length comes last. It varies, whatever a graph says: a graph of one length fails.
TEXT = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_FLOATS = ("float32", "float16", "float64")


def tokens(manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> int:
    """How long the rows of a batch are, in tokens; 0 where they are no texts or sound."""
    found = (
        arrays[spec.name].shape[axis] // _STEPS[dim]
        for spec in manifest.inputs
        for axis, dim in enumerate(spec.shape)
        if dim in _STEPS and isinstance(dim, str)
    )
    return next(found, 0)


def fill(
    spec: TensorSpec, vocabulary: Vocabulary, rng: np.random.Generator, rows: int, lengths: np.ndarray
) -> np.ndarray:
    """Random values for an input [rows, ...].

    Args:
        spec: the input.
        vocabulary: of the base.
        rng: of the batch.
        rows: how many.
        lengths: int [rows], each row's length in tokens; what is behind it is padding.

    Raises:
        NotSupportedError: it is neither text, image nor sound, or has a free axis that eptx does not know.
    """
    longest = int(lengths.max())
    shape = (rows, *(_size(spec, axis, longest) for axis in range(1, len(spec.shape))))
    kept = _kept(spec, shape, lengths)
    if spec.name == "input_ids":
        return _tokens(vocabulary, rng, kept)
    if spec.name == "attention_mask":
        return kept
    if spec.name == "token_type_ids":
        second = rng.integers(1, shape[-1] + 1, (*shape[:-1], 1)) <= np.arange(shape[-1])
        types: np.ndarray = (second & kept & (vocabulary.types > 1)).astype(np.int64)
        return types
    if spec.name == "position_ids":
        return np.broadcast_to(np.arange(shape[-1]), shape)
    if spec.name == "bbox" and spec.shape[1:] == ("length", 4):
        across, down = (np.sort(rng.integers(0, vocabulary.places, (*kept.shape, 2)), axis=-1) for _ in range(2))
        return np.asarray(np.stack([across, down], axis=-1).reshape(shape) * kept[..., None])
    if spec.dtype in _FLOATS:
        values = rng.standard_normal(shape)
        return np.asarray(values * kept.reshape(kept.shape + (1,) * (values.ndim - kept.ndim)))
    raise NotSupportedError(f"graph input {spec.name!r} is no text, image or sound: validation cannot fill it")


def _size(spec: TensorSpec, axis: int, longest: int) -> int:
    dim = spec.shape[axis]
    if isinstance(dim, int):
        return longest if spec.name in TEXT and axis == len(spec.shape) - 1 else dim
    if dim in _STEPS:
        return _STEPS[dim] * longest
    if dim == "choices":
        return _CHOICES
    raise NotSupportedError(f"graph input {spec.name} has free sizes {list(spec.shape)}: validation needs fixed ones")


def _kept(spec: TensorSpec, shape: tuple[int, ...], lengths: np.ndarray) -> np.ndarray:
    """bool, of the axes up to the one that lengths are of: what is not padding."""
    axis = next((axis for axis, dim in enumerate(spec.shape) if axis and dim in _STEPS), None)
    if axis is None:
        return np.ones(shape, dtype=bool)
    ends = (lengths * _STEPS[str(spec.shape[axis])]).reshape(-1, *(1,) * axis)
    return np.broadcast_to(np.arange(shape[axis]) < ends, shape[: axis + 1])


def _tokens(vocabulary: Vocabulary, rng: np.random.Generator, kept: np.ndarray) -> np.ndarray:
    ids = vocabulary.draw(rng, kept.shape)
    if vocabulary.first is not None:
        ids[..., 0] = vocabulary.first
    if vocabulary.last not in (None, vocabulary.pad):
        np.put_along_axis(ids, kept.sum(axis=-1, keepdims=True) - 1, vocabulary.last, axis=-1)
    return np.where(kept, ids, vocabulary.pad)
