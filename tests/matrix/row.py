"""One row of the matrix: an architecture as a tiny random model, and what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Arrays = dict[str, np.ndarray]
#: How a bundle is called: once, once for each task, token by token with a cache, or as an encoder and a decoder.
Kind = Literal["forward", "two towers", "decoder", "encoder-decoder"]
Section = Literal["text", "vision", "audio", "two towers", "decoders", "encoder-decoders"]


def texts(vocabulary: int, length: int = 7, *, segments: bool = False) -> Callable[[int], Arrays]:
    """Ragged rows of random tokens, padded with zeros on the right."""

    def make(rows: int) -> Arrays:
        rng = np.random.default_rng(3)
        ids, mask = rng.integers(5, vocabulary, (rows, length)), np.ones((rows, length), np.int64)
        for row in range(1, rows):
            mask[row, length - row % 4 :] = 0
        more = {"token_type_ids": rng.integers(0, 2, ids.shape) * mask} if segments else {}
        return {"input_ids": ids * mask, "attention_mask": mask, **more}

    return make


def unmasked(vocabulary: int) -> Callable[[int], Arrays]:
    """Rows of one length, for a model that reads no mask."""
    return lambda rows: {"input_ids": np.random.default_rng(3).integers(5, vocabulary, (rows, 7))}


def images(side: int, channels: int = 3) -> Callable[[int], Arrays]:
    """Random pixels."""
    return lambda rows: {
        "pixel_values": np.random.default_rng(3).normal(size=(rows, channels, side, side)).astype(np.float32)
    }


def pages(vocabulary: int) -> Callable[[int], Arrays]:
    """Texts whose tokens stand somewhere on a page."""

    def make(rows: int) -> Arrays:
        arrays = texts(vocabulary)(rows)
        boxes = np.random.default_rng(4).integers(0, 500, (*arrays["input_ids"].shape, 4))
        return {**arrays, "bbox": np.sort(boxes, -1)}

    return make


def choices(vocabulary: int) -> Callable[[int], Arrays]:
    """Questions with three answers each."""

    def make(rows: int) -> Arrays:
        return {name: array.reshape(rows, 3, -1) for name, array in texts(vocabulary)(3 * rows).items()}

    return make


def pairs(vocabulary: int, side: int) -> Callable[[int], Arrays]:
    """As many texts as images."""
    return lambda rows: {**texts(vocabulary)(rows), **images(side)(rows)}


def patches(count: int, width: int) -> Callable[[int], Arrays]:
    """Images as squares of patches."""

    def make(rows: int) -> Arrays:
        values = np.random.default_rng(3).normal(size=(rows, count, width)).astype(np.float32)
        sides = np.full((rows, 2), round(count**0.5))
        return {
            "pixel_values": values,
            "pixel_attention_mask": np.ones((rows, count), np.int64),
            "spatial_shapes": sides,
        }

    return make


def sound(samples: int) -> Callable[[int], Arrays]:
    """Recordings of different lengths, padded with zeros."""

    def make(rows: int) -> Arrays:
        ends = samples - 40 * np.arange(rows)[:, None]
        mask = (np.arange(samples) < ends).astype(np.int64)
        values = np.random.default_rng(3).normal(size=(rows, samples)).astype(np.float32)
        return {"input_values": values * mask.astype(np.float32), "attention_mask": mask}

    return make


def spectrograms(name: str, *sizes: int) -> Callable[[int], Arrays]:
    """Random spectrograms."""
    return lambda rows: {name: np.random.default_rng(3).normal(size=(rows, *sizes)).astype(np.float32)}


@dataclass(frozen=True)
class Row:
    """An architecture.

    Attributes:
        name: as docs/supported.md shows it.
        section: of docs/supported.md.
        trained: the class of transformers that the adapters are trained on.
        config: the class of its configuration, and settings.
        inputs: number of rows -> the model's inputs by name.
        kind: how a bundle is called.
        base: the class that the base folder is saved as, where it is another one.
        peft: settings of every adapter, such as the task type.
        targets: names of linear layers; the adapters adapt all of them, the first half, the second half. None: all
            linear layers but the head.
        adapters: how many adapters there are.
        prepare: what a base folder needs besides the model.
        tokens: how many tokens adapter number i adds to the base's, as ``resize_token_embeddings`` does; then none.
    """

    name: str
    section: Section
    trained: str
    config: tuple[str, Mapping[str, Any]]
    inputs: Callable[[int], Arrays]
    kind: Kind = "forward"
    base: str | None = None
    peft: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] | None = None
    adapters: int = 3
    prepare: Callable[[Path], None] | None = None
    tokens: tuple[int, ...] = ()
