"""Runs a bundle's model on one batch: in one call, or, for a generator, on the prompt and then token by token.

A generator gets its rows padded on the right, whichever side the batch is padded on; its outputs are put back where
the batch has the tokens. The cache goes from call to call, and so does what the model chose for the prompt: a row's
task and its route.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from eptx.bundle import Manifest
from eptx.manifest.names import ENCODER_MASK, PAST, PRESENT, ROUTE_GROUP, TASK_ID, USED
from eptx.runtime.validation.batch import ANSWER_IDS, CHOSEN, Batch, bundle_ids, spans

Values = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], Values]


class DecodeLoop:
    """Runs one batch.

    Args:
        manifest: of the bundle.
        batch: the rows, with all tokens.

    Raises:
        BundleError: the bundle lacks a task of the batch.

    Attributes:
        tokens: what the model is fed, prompts padded on the right. Once the batch has run, the tokens that it was to
            choose are there.
        encoded: the encoder's outputs, once the batch has run.
    """

    def __init__(self, manifest: Manifest, batch: Batch) -> None:
        ids = bundle_ids(manifest, batch)
        self._manifest, self._batch = manifest, batch
        self._given: dict[str, np.ndarray] = {} if ids is None else {TASK_ID: ids}
        self._tokens_name = ANSWER_IDS if ANSWER_IDS in batch.arrays else "input_ids"
        self.tokens = np.empty(0) if batch.prompt is None else self._left_aligned(batch.arrays[self._tokens_name])
        self.encoded: Values = {}

    def run(self, run: Run, encode: Run | None = None) -> list[Values]:
        """Runs the batch, and gives the outputs of every call.

        Args:
            run: calls ``model.onnx``.
            encode: calls the encoder, where there is one.
        """
        prompt = self._batch.prompt
        if prompt is None:
            return [run({**self._batch.arrays, **self._given})]
        tokens, mask = self.tokens, np.ones_like(self.tokens)
        if encode is None:
            mask = self._left_aligned(self._batch.arrays["attention_mask"])
        state = {**self._first_cache(), **self._choices(), **self._given, **self._encode(encode)}
        known = {spec.name for spec in self._manifest.inputs}
        calls = []
        for start, stop in spans(self._batch):
            positions = mask[:, :stop].cumsum(axis=1)[:, start:] - 1
            if start == 0:  # padding stands behind the row and is numbered on, as in GenAI
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

    def joined(self, calls: list[Values], name: str, columns: slice = slice(None)) -> np.ndarray:
        """A value of all calls, its positions where the batch has them; of the first call, if it has no positions.

        Some of its features, if it has more: [rows, positions, ...] with all that is behind the positions in one axis.
        """
        prompt = self._batch.prompt
        values = [call[name][..., columns] for call in calls] if calls[0][name].ndim else [calls[0][name]]
        if prompt is None or values[0].ndim < 2 or name.endswith(USED):
            return values[0]
        rows = self._batch.rows
        first = self._restored(values[0].reshape(rows, prompt, -1))
        return np.concatenate([first, *(value.reshape(rows, 1, -1) for value in values[1:])], axis=1)

    def _encode(self, encode: Run | None) -> Values:
        """Runs the encoder; its outputs are inputs of the decoder."""
        if encode is None or self._manifest.encoder is None:
            return {}
        text = self._batch.read
        known = {spec.name for spec in self._manifest.encoder.inputs}
        self.encoded = encode({name: value for name, value in {**text, **self._given}.items() if name in known})
        used = {name.removesuffix(USED): value for name, value in self.encoded.items() if name.endswith(USED)}
        mask = {ENCODER_MASK: text["attention_mask"]} if "attention_mask" in text else {}
        return {**self.encoded, **used, **mask}

    def _left_aligned(self, array: np.ndarray) -> np.ndarray:
        """The columns with each prompt's padding moved behind it."""
        assert self._batch.prompt is not None
        head = self._rolled(array[:, : self._batch.prompt], self._shift())
        return np.concatenate([head, array[:, self._batch.prompt :]], axis=1)

    def _restored(self, array: np.ndarray) -> np.ndarray:
        return self._rolled(array, -self._shift())

    def _shift(self) -> np.ndarray:
        """How much padding stands before each row."""
        mask = self._batch.arrays.get("attention_mask")
        return np.zeros(self._batch.rows, np.int64) if mask is None else np.asarray(mask.argmax(axis=1))

    @staticmethod
    def _rolled(array: np.ndarray, shift: np.ndarray) -> np.ndarray:
        length = array.shape[1]
        index = (np.arange(length) + shift[:, None]) % length
        return np.take_along_axis(array, index.reshape(*index.shape, *([1] * (array.ndim - 2))), axis=1)

    def _first_cache(self) -> dict[str, np.ndarray]:
        """A cache of no positions."""
        specs = [spec for spec in self._manifest.inputs if spec.name.startswith(PAST)]
        return {
            spec.name: np.zeros((self._batch.rows, _size(spec.shape[1]), 0, _size(spec.shape[3])), spec.dtype)
            for spec in specs
        }

    def _choices(self) -> dict[str, np.ndarray]:
        """Route inputs that leave the choice to the model: group -1, and weights that it ignores."""
        found = {}
        for spec in self._manifest.inputs:
            if spec.name.startswith("route_"):
                shape = (self._batch.rows, *(_size(dim) for dim in spec.shape[1:]))
                found[spec.name] = np.full(shape, -1 if spec.name == ROUTE_GROUP else 0, spec.dtype)
        return found


def _likeliest(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The likeliest token [rows] after each row's last of these positions; padding is behind them."""
    return np.asarray(logits[np.arange(len(logits)), mask.sum(axis=1) - 1].argmax(axis=1))


def _source(name: str) -> str:
    """The output that feeds an input in the next call."""
    return name.replace(PAST, PRESENT, 1) if name.startswith(PAST) else f"{name}{USED}"


def _size(dim: Any) -> int:
    return int(dim)
