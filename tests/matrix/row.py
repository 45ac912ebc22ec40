"""One row of the matrix: an architecture as a tiny random model, and what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Arrays = dict[str, np.ndarray]
#: How a bundle is called: once, token by token with a cache, or as an encoder and then a decoder with a cache.
Kind = Literal["forward", "decoder", "encoder-decoder"]
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


def images(side: int, channels: int = 3) -> Callable[[int], Arrays]:
    """Random pixels."""
    return lambda rows: {
        "pixel_values": np.random.default_rng(3).normal(size=(rows, channels, side, side)).astype(np.float32)
    }


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
