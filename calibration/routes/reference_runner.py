"""Runs the trained model of a routed adapter in PyTorch, one row at a time, by the live route or by a frozen one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eptx.bundle import Task
from eptx.calibration.routes.row_tokenizer import RowTokenizer
from eptx.errors import NotSupportedError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.routing.route import Frozen, Route
from eptx.exporter.bases import is_decoder
from eptx.exporter.bases.weights.model import read_config
from eptx.exporter.bundle.problem import problem_type
from eptx.exporter.trained import Output, load_trained, read_files
from eptx.exporter.validation.base.lookups import lookups
from eptx.runtime.measure import Row
from eptx.runtime.measure.labels import kind_of

#: Where a text has no answer, so many of its last tokens stand in for one.
_LAST_TOKENS = 16
_NONE = np.zeros(0)


@dataclass(frozen=True)
class EncodedRow:
    """A row as the reference reads it.

    Attributes:
        row: the row.
        inputs: of one call, int64 [1, length] each; a decoder reads the row's answer behind its prompt.
        wanted: token ids of the answer, where the model generates one.
    """

    row: Row
    inputs: dict[str, np.ndarray]
    wanted: tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """What one forward gave.

    Attributes:
        kind: of the answer, as `eptx.runtime.measure.Answers` has it. answer: the same. confidence: the same.
        output: logits, or the model's first output, float64 [1, ...]. largest: the largest number in it.
        affinity: by the live route: for each call of the router that routes by the data, or for each module that has a
            router of its own, the weights of every group's experts if that group were chosen [calls, k, t]. None by a
            frozen route.
    """

    kind: str
    answer: np.ndarray
    confidence: np.ndarray
    output: np.ndarray
    largest: float
    affinity: np.ndarray | None

    @property
    def groups(self) -> np.ndarray:
        """By the live route, the group that each of those calls has chosen [calls]."""
        assert self.affinity is not None
        return np.asarray(self.affinity.max(2).argmax(1))

    @property
    def best(self) -> np.ndarray:
        """What is largest in the answer: the label or labels, the tokens, or the features."""
        if self.kind == "sets":
            return self.answer > 0
        return self.answer if self.kind == "tokens" else self.answer.argmax(-1)


class ReferenceRunner:
    """The reference, ready to run rows.

    It reads the adapter's files anew, as PEFT does: nothing that the exporter has read of them counts here.

    Args:
        base: the transformers folder.
        adapter: what the exporter read: its folders, its tasks, and the names of their labels.
        model_class: the class to load, where the user names it.

    Raises:
        NotSupportedError: the base reads no text.
    """

    def __init__(self, base: Path, adapter: Adapter, model_class: str | None = None) -> None:
        config = read_config(base)
        vocabulary = config.get("vocab_size")
        if not isinstance(vocabulary, int):
            raise NotSupportedError(
                f"calibration data is text, which {config['model_type']} does not read: give --route"
            )
        self._adapter, self._config = adapter, config
        self._decoder = adapter.heads is None and is_decoder(config)
        files = read_files(adapter.folders, allow_pickle=True)  # the adapter could not have been read without leave
        self._model = load_trained(base, files, adapter.tasks, model_class=model_class)
        self._tokenizer = RowTokenizer(base, vocabulary, lookups(self._model.model).longest)
        self._generates = self._decoder or bool(self._model.model.config.is_encoder_decoder)
        self._vocabulary = vocabulary
        self._constant: list[bool] = []

    def task(self, name: str, labels: int) -> Task:
        """A task whose logits are that many."""
        names = next((own for own in self._adapter.label_names.get(name, ()) if len(own) == labels), None)
        return Task(name, self._adapter.tasks.index(name), labels, names, problem_type(self._config, labels))

    def encode(self, row: Row) -> EncodedRow:
        """A row as inputs.

        Raises:
            DataError: it has token ids that the base does not read.
            NotSupportedError: it is text, and the base folder has no tokenizer.
        """
        inputs = self._tokenizer.inputs(row)
        if not self._generates:
            return EncodedRow(row, inputs, ())
        wanted = self._tokenizer.answer(row)
        if self._decoder:
            ids = np.array([[*inputs["input_ids"][0], *wanted]], dtype=np.int64)
            return EncodedRow(row, {"input_ids": ids, "attention_mask": np.ones_like(ids)}, wanted)
        start = np.array([[self._model.model.config.decoder_start_token_id, *wanted[:-1]]], dtype=np.int64)
        return EncodedRow(row, inputs | {"decoder_input_ids": start}, wanted)

    def run(self, row: EncodedRow, route: Frozen | None = None) -> Prediction:
        """One forward, by the live routes, or by frozen ones at the calls that route by the data."""
        result = self._forward(row, row.inputs, None if route is None else self._at_calls(route))
        kind, output, answer, confidence = self._answer(row, result)
        affinity = None
        if route is None:
            if not self._constant:
                self._constant = self._constant_calls(row, result)
            live = [call[0] for call in result.calls if call is not None]
            affinity = np.stack([call for call, fixed in zip(live, self._constant, strict=True) if not fixed])
        return Prediction(kind, answer, confidence, output, float(np.abs(output).max()), affinity)

    def _forward(
        self, row: EncodedRow, inputs: dict[str, np.ndarray], frozen: list[Route | None] | None = None
    ) -> Output:
        return self._model.run(inputs, [self._adapter.tasks.index(row.row.task)], frozen=frozen)

    def _at_calls(self, route: Frozen) -> list[Route | None]:
        own = iter(route)
        return [None if fixed else next(own) for fixed in self._constant]

    def _constant_calls(self, row: EncodedRow, result: Output) -> list[bool]:
        """Which calls of the router give the same for other tokens, as those on DeBERTa-v2's positions do.

        A module that has a router of its own has one route for all its calls, which is frozen whatever they read.

        Raises:
            NotSupportedError: all of them.
        """
        if self._model.method.routes_by_module:
            return [False] * len(result.calls)
        other = {
            name: (ids + 1) % self._vocabulary if name.endswith("input_ids") else ids
            for name, ids in row.inputs.items()
        }
        moved = self._forward(row, other)
        same = [np.array_equal(a, b) for a, b in zip(result.calls, moved.calls, strict=True) if a is not None]  # type: ignore[arg-type]
        if all(same):
            raise NotSupportedError("the router reads none of the model's inputs: there is no route to freeze")
        return same

    def _answer(self, row: EncodedRow, result: Output) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
        """The kind of the answer, the output that holds it, the answer, and its confidence."""
        outputs, heads = result.outputs, self._adapter.heads
        if self._generates:
            tokens, confidence = self._tokens(row, outputs["logits"][0])
            return "tokens", outputs["logits"], tokens, confidence
        labels = heads.labels(row.row.task) if heads is not None else None
        if labels != 0 and "logits" in outputs and outputs["logits"].ndim == 2:
            answer = outputs["logits"][0, :labels]
            kind = kind_of(problem_type(self._config, len(answer)), len(answer))
            return kind, outputs["logits"], answer, _NONE
        first = next(iter(outputs.values()))
        return "vector", first, first[0].mean(0) if first.ndim == 3 else first[0].reshape(-1), _NONE

    def _tokens(self, row: EncodedRow, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tokens chosen in place of the answer's, and how likely the answer's are; logits [length, vocabulary]."""
        there = np.array(row.wanted, dtype=np.int64)
        if self._decoder:
            ids = row.inputs["input_ids"][0]
            count = len(there) or min(_LAST_TOKENS, len(ids) - 1)
            there = ids[len(ids) - count :]
            logits = logits[len(ids) - count - 1 : -1] if count else logits[-1:]
        shifted = logits - logits.max(-1, keepdims=True)
        if not len(there):
            return shifted.argmax(-1), _NONE
        likely = np.exp(shifted[np.arange(len(there)), there]) / np.exp(shifted).sum(-1)
        return shifted.argmax(-1), likely
