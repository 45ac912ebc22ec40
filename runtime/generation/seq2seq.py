"""Encoder-decoders: the encoder once, then the decoder token by token, on ONNX Runtime directly.

The encoder reads a text, or the features of a sound. Its outputs are fed to the decoder's inputs of the same name: the
keys and values of what it read, and the route if the adapter has one. The encoder also infers the task of rows with
task -1: the decoder sees only the beginning of the answer, so it is always told the task.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from eptx.bundle import AnswerRules, Bundle, TensorSpec
from eptx.errors import RequestError
from eptx.manifest.names import (
    CROSS,
    ENCODER_MASK,
    PAST,
    PRESENT,
    ROUTE_GROUP,
    ROUTE_WEIGHTS,
    TASK_ID,
    TASK_ID_USED,
    USED,
)
from eptx.providers import PROVIDERS
from eptx.runtime.generation.backend import DONE, Step
from eptx.runtime.generation.request import Prompt
from eptx.runtime.generation.rules import AnswerLogits
from eptx.runtime.generation.sampling import Sampler
from eptx.runtime.generation.settings import GenerationSettings
from eptx.runtime.ort.model import check_signature
from eptx.runtime.ort.providers import onnxruntime
from eptx.runtime.ort.sessions import open_bundle, wrapped_errors
from eptx.runtime.outputs import Array
from eptx.runtime.requests.rows import pad_rows

_CHOICES = (TASK_ID, ROUTE_GROUP, ROUTE_WEIGHTS)


class Seq2SeqGenerator:
    """The `TokenGenerator` of encoder-decoder bundles; `kernels` are the decoder's."""

    def __init__(self, bundle: Bundle, provider: str, threads: int | None) -> None:
        manifest = bundle.manifest
        assert manifest.generation is not None and manifest.encoder is not None
        encoder, _ = open_bundle(bundle, provider, threads, model=bundle.path / manifest.encoder.file)
        decoder, self.kernels = open_bundle(bundle, provider, threads)
        self._encoder = _Model(encoder, manifest.encoder.inputs, manifest.encoder.outputs, provider)
        self._decoder = _Model(decoder, manifest.inputs, manifest.outputs, provider)
        self._generation = manifest.generation

    def tokens(
        self, prompts: Sequence[Prompt], task_ids: Array | None, settings: GenerationSettings
    ) -> Generator[Step, None, None]:
        """See `TokenGenerator.tokens`."""
        generation, rows = self._generation, len(prompts)
        assert generation.start is not None
        rules = generation.rules or AnswerRules()
        texts = [[] if isinstance(prompt, np.ndarray) else prompt for prompt in prompts]
        obeying = AnswerLogits(rules, generation.eos, texts)
        answers = _Answers(self._decoder, self._encode(prompts, task_ids), rows, task_ids)
        last: Array = np.full(rows, generation.start, np.int64)
        given: list[list[int]] = [[generation.start] for _ in prompts]
        for place in rules.forced:
            likeliest = answers.step(last)[:, list(place)].argmax(axis=1)
            last = np.asarray(place, np.int64)[likeliest]
            _append(given, last)
        sampler, live = Sampler(settings, rows), np.ones(rows, bool)
        for step in range(settings.max_new_tokens):
            logits = obeying.obey(answers.step(last), given, first=step == 0)
            last = np.where(live, sampler.choose(logits), generation.pad)
            _append(given, last)
            yield Step(np.where(live, last, DONE), None if settings.top_logprobs is None else logits)
            live &= ~np.isin(last, generation.eos)
            if not live.any():
                return

    def _encode(self, prompts: Sequence[Prompt], task_ids: Array | None) -> dict[str, Any]:
        """The decoder's inputs that every step has, without its tokens and cache."""
        feeds = self._inputs(prompts)
        if task_ids is not None and TASK_ID in self._encoder.inputs:
            feeds[TASK_ID] = task_ids
        outputs = self._encoder.run({name: self._encoder.value(array) for name, array in feeds.items()})
        if task_ids is not None and TASK_ID_USED in outputs:
            task_ids[...] = outputs[TASK_ID_USED].numpy()
        given = {name: value for name, value in outputs.items() if name in self._decoder.inputs}
        if ENCODER_MASK in self._decoder.inputs:
            given[ENCODER_MASK] = self._decoder.value(feeds["attention_mask"])
        return given

    def _inputs(self, prompts: Sequence[Prompt]) -> dict[str, Array]:
        """The encoder's inputs: tokens, padded, or the arrays of each row."""
        arrays = [prompt for prompt in prompts if isinstance(prompt, np.ndarray)]
        if arrays:
            (name,) = (name for name in self._encoder.inputs if name != TASK_ID)
            return {name: np.stack(arrays)}
        tokens = [prompt for prompt in prompts if not isinstance(prompt, np.ndarray)]
        mask = pad_rows([[1] * len(prompt) for prompt in tokens], 0)
        return {"input_ids": pad_rows(tokens, self._generation.pad), "attention_mask": mask}


def _append(given: list[list[int]], tokens: Array) -> None:
    for row, token in zip(given, tokens.tolist(), strict=True):
        row.append(token)


class _Answers:
    """A batch whose answers are generated: the decoder's inputs, with a cache that grows."""

    def __init__(self, decoder: _Model, given: Mapping[str, Any], rows: int, task_ids: Array | None) -> None:
        self._decoder, self._feeds, self._task_ids = decoder, dict(given), task_ids
        for name, spec in decoder.inputs.items():
            if name.startswith(PAST):
                empty = np.zeros((rows, int(spec.shape[1]), 0, int(spec.shape[3])), spec.dtype)
                self._feeds[name] = decoder.value(empty)
        if task_ids is not None and TASK_ID in decoder.inputs:
            self._feeds[TASK_ID] = decoder.value(task_ids)
        if ROUTE_GROUP in decoder.inputs and ROUTE_GROUP not in given:  # the decoder's own router; its route is kept
            experts = int(decoder.inputs[ROUTE_WEIGHTS].shape[1])
            self._feeds[ROUTE_GROUP] = decoder.value(np.full(rows, -1, np.int64))
            self._feeds[ROUTE_WEIGHTS] = decoder.value(np.zeros((rows, experts), np.float32))

    def step(self, tokens: Array) -> Array:
        """The logits [rows, vocabulary] after one more token of every row, int64 [rows]."""
        outputs = self._decoder.run({**self._feeds, "input_ids": self._decoder.value(tokens[:, None])})
        for name in self._feeds:
            if name.startswith(PAST):
                self._feeds[name] = outputs[PRESENT + name.removeprefix(PAST)]
            elif name in _CHOICES and f"{name}{USED}" in outputs:  # the choice at the first token is kept
                self._feeds[name] = outputs[f"{name}{USED}"]
        if self._task_ids is not None and TASK_ID_USED in outputs:
            self._task_ids[...] = outputs[TASK_ID_USED].numpy()
        logits: Array = outputs["logits"].numpy()[:, -1]
        return logits


class _Model:
    """One of the two models, run on values that stay where they were computed."""

    def __init__(
        self, session: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], provider: str
    ) -> None:
        self.inputs = {spec.name: spec for spec in inputs}
        self._session, self._provider = session, provider
        # the cache stays on the provider's device
        own = PROVIDERS[provider].device
        self._devices = {s.name: own if s.name.startswith((CROSS, PRESENT)) else "cpu" for s in outputs}
        check_signature(session, inputs, outputs)

    def value(self, array: Array) -> Any:
        """An array as an ``OrtValue``, which shares its memory."""
        return onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs, ``OrtValue`` by name.

        Raises:
            RequestError: ONNX Runtime fails.
            LimitError: there is not enough memory.
        """
        with wrapped_errors("ONNX Runtime fails on this request", RequestError):
            binding = self._session.io_binding()
            for name, value in feeds.items():
                binding.bind_ortvalue_input(name, value)
            for name, device in self._devices.items():
                binding.bind_output(name, device)
            self._session.run_with_iobinding(binding)
            return dict(zip(self._devices, binding.get_outputs(), strict=True))
