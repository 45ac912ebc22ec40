"""Tensors that modules of a base share, and what becomes of those where a task changes one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eptx.exporter.adapters.changes import LowRank, Rows, TensorChange, Whole
from eptx.exporter.bases.weights.checkpoint import BaseCheckpoint

__all__ = ["HEAD", "SHARED", "TABLE", "TiedCheckpoint", "sharing_in", "with_shared"]

#: A decoder's embeddings and its head, which share a tensor where the configuration says so.
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SHARED = dict.fromkeys((TABLE, HEAD), (TABLE, HEAD))


def sharing_in(model: Any) -> dict[str, list[str]]:
    """The name of each tensor of a model -> all names of it."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: others for others in names.values() for name in others}


def with_shared(
    changes: Mapping[str, TensorChange], sharing: Mapping[str, Collection[str]], lengths: Mapping[str, int]
) -> dict[str, TensorChange]:
    """One task's changes with those of modules that go on sharing a changed tensor.

    A head whose rows of tokens are changed adds no bias: PEFT's layer for such rows leaves it out, in training as in
    use. (PEFT 0.21, tuners/trainable_tokens/layer.py: forward_adapters)

    Args:
        changes: by the names of the class.
        sharing: a name -> all names of its tensor.
        lengths: name -> how long the first axis of a tensor is, of all tensors.
    """
    shared = {name: _goes_on(change) for name, change in changes.items()}
    found = {other: change for name, change in shared.items() if change is not None for other in sharing.get(name, ())}
    found |= changes
    for name, change in list(found.items()):
        bias = f"{name.removesuffix('.weight')}.bias"
        if isinstance(change, Rows) and bias in lengths:
            found[bias] = Whole(np.zeros(change.length(lengths[name]), np.float32))
    return found


def _goes_on(change: TensorChange) -> TensorChange | None:
    """What the modules have that share the changed tensor in the base: PEFT's factors are of one module alone."""
    if change.tied:
        return change
    return Whole(change.of, tied=True) if isinstance(change, LowRank) and change.of is not None else None


class TiedCheckpoint(BaseCheckpoint):
    """A decoder's folder, in which a head that shares the embeddings has its own name.

    Attributes:
        tied: whether the head shares them.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Reads the headers; see `BaseCheckpoint`.

        Args:
            folder: of the base.
            config: its ``config.json``.
        """
        super().__init__(folder)
        self.tied = bool(config.get("tie_word_embeddings")) and TABLE in self
        if self.tied:
            self._files[HEAD], self._shapes[HEAD] = self._files[TABLE], self._shapes[TABLE]

    def array(self, name: str) -> np.ndarray:
        """See `BaseCheckpoint`."""
        return super().array(TABLE if self.tied and name == HEAD else name)
