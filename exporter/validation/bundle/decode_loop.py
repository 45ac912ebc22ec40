"""Feeding one batch to a bundle's model: in one call, or as a generator does, the prompt and then token by token.

A generator's rows are padded on the right, whichever side the batch has its padding on; what the model gives is put
back where the batch has it. The cache, and what the model was free to choose for the prompt (a row's task, its
route), go from call to call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from eptx.bundle import Manifest
from eptx.exporter.validation.inputs.batch import ANSWER_IDS, CHOSEN, Batch
from eptx.manifest.names import PAST, PRESENT, ROUTE_GROUP, TASK_ID, USED

Values = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], Values]


class Calls:
    """The calls that one batch takes.

    Args:
        manifest: of the bundle.
        batch: the rows, with all tokens.
        ids: the bundle's task ids [rows], None where it takes none.

    Attributes:
        tokens: what is fed, prompts padded on the right; tokens to choose are the likeliest, once the batch has run.
        encoded: what the encoder gives, once the batch has run.
    """

    def __init__(self, manifest: Manifest, batch: Batch, ids: np.ndarray | None) -> None:
        self._manifest, self._batch = manifest, batch
        self._given: dict[str, np.ndarray] = {} if ids is None else {TASK_ID: ids}
        self._tokens_name = ANSWER_IDS if ANSWER_IDS in batch.arrays else "input_ids"
        self.tokens = np.empty(0) if batch.prompt is None else self._turned(batch.arrays[self._tokens_name])
        self.encoded: Values = {}

    def run(self, run: Run, encode: Run | None = None) -> list[Values]:
        """What every call gives, as the model gives it.

        Args:
            run: calls ``model.onnx``.
            encode: calls the encoder, where there is one.
        """
        prompt = self._batch.prompt
        if prompt is None:
            return [run({**self._batch.arrays, **self._given})]
        tokens, mask = self.tokens, np.ones_like(self.tokens)
        if encode is None:
            mask = self._turned(self._batch.arrays["attention_mask"])
        state = {**self._first_cache(), **self._choices(), **self._given, **self._encode(encode)}
        known = {spec.name for spec in self._manifest.inputs}
        calls = []
        for start, stop in spans(self._batch):
            positions = mask[:, :stop].cumsum(axis=1)[:, start:] - 1
            if start == 0:  # padding stands behind the row and goes on counting, as GenAI numbers it
                positions = np.broadcast_to(np.arange(stop), (len(tokens), stop))
            feeds = {
                "input_ids": tokens[:, start:stop],
                "attention_mask": mask[:, :stop],
                "position_ids": positions,
            }
            state = {name: value for name, value in state.items() if name in known}
            values = run({**{k: np.ascontiguousarray(v) for k, v in feeds.items() if k in known}, **state})
            if stop < self._batch.length and tokens[0, stop] == CHOSEN:
                tokens[:, stop] = _likeliest(values["logits"], mask[:, start:stop])
            state = {name: values.get(_source(name), value) for name, value in state.items()}
            calls.append({name: value for name, value in values.items() if not name.startswith(PRESENT)})
        return calls

    def answered(self) -> Batch:
        """The batch with the tokens that were chosen."""
        prompt = self._batch.prompt
        name = self._tokens_name
        ids = np.concatenate([self._batch.arrays[name][:, :prompt], self.tokens[:, prompt:]], axis=1)
        return replace(self._batch, arrays={**self._batch.arrays, name: ids})

    def joined(self, calls: list[Values], name: str) -> np.ndarray:
        """A value of all positions, where the batch has them; one that has none, of the first call."""
        prompt = self._batch.prompt
        first = calls[0][name]
        if prompt is None or first.ndim < 2 or name.endswith(USED):
            return first
        rows = self._batch.rows
        first = self._turned_back(first.reshape(rows, prompt, -1))
        return np.concatenate([first, *(call[name].reshape(rows, 1, -1) for call in calls[1:])], axis=1)

    def _encode(self, encode: Run | None) -> Values:
        """What the encoder gives, as the inputs of the other model."""
        if encode is None or self._manifest.encoder is None:
            return {}
        text = {name: self._batch.arrays[name] for name in ("input_ids", "attention_mask")}
        known = {spec.name for spec in self._manifest.encoder.inputs}
        self.encoded = encode({name: value for name, value in {**text, **self._given}.items() if name in known})
        used = {name.removesuffix(USED): value for name, value in self.encoded.items() if name.endswith(USED)}
        return {**self.encoded, **used, "encoder_attention_mask": text["attention_mask"]}

    def _turned(self, array: np.ndarray) -> np.ndarray:
        """The prompts' padding moved behind them."""
        assert self._batch.prompt is not None
        head = self._taken(array[:, : self._batch.prompt], self._shift())
        return np.concatenate([head, array[:, self._batch.prompt :]], axis=1)

    def _turned_back(self, array: np.ndarray) -> np.ndarray:
        return self._taken(array, -self._shift())

    def _shift(self) -> np.ndarray:
        """How many positions of padding are before each row."""
        return np.asarray(self._batch.arrays["attention_mask"].argmax(axis=1))

    @staticmethod
    def _taken(array: np.ndarray, shift: np.ndarray) -> np.ndarray:
        length = array.shape[1]
        index = (np.arange(length) + shift[:, None]) % length
        return np.take_along_axis(array, index.reshape(*index.shape, *([1] * (array.ndim - 2))), axis=1)

    def _first_cache(self) -> dict[str, np.ndarray]:
        """A cache of nothing."""
        specs = [spec for spec in self._manifest.inputs if spec.name.startswith(PAST)]
        return {
            spec.name: np.zeros((self._batch.rows, _size(spec.shape[1]), 0, _size(spec.shape[3])), spec.dtype)
            for spec in specs
        }

    def _choices(self) -> dict[str, np.ndarray]:
        """What the model is to choose: -1, and weights that are not looked at."""
        found = {}
        for spec in self._manifest.inputs:
            if spec.name.startswith("route_"):
                shape = (self._batch.rows, *(_size(dim) for dim in spec.shape[1:]))
                found[spec.name] = np.full(shape, -1 if spec.name == ROUTE_GROUP else 0, spec.dtype)
        return found


def spans(batch: Batch) -> list[tuple[int, int]]:
    """The columns of every call: the prompt's, then one after the other."""
    if batch.prompt is None:
        return [(0, batch.length)]
    return [(0, batch.prompt), *((at, at + 1) for at in range(batch.prompt, batch.length))]


def _likeliest(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The likeliest token [rows] after each row's last of these positions; padding is behind them."""
    return np.asarray(logits[np.arange(len(logits)), mask.sum(axis=1) - 1].argmax(axis=1))


def _source(name: str) -> str:
    """The output that feeds an input in the next call."""
    return name.replace(PAST, PRESENT, 1) if name.startswith(PAST) else f"{name}{USED}"


def _size(dim: Any) -> int:
    return int(dim)
