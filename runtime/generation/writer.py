"""Answers prompts: from a request to the pieces of its answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from eptx.bundle import Bundle
from eptx.errors import RequestError
from eptx.runtime._kernels import Kernels, choose_kernels
from eptx.runtime._tasks import TaskChooser
from eptx.runtime._tokenizer import Tokenizer
from eptx.runtime.generation.backend import TokenGenerator
from eptx.runtime.generation.outputs import Stream
from eptx.runtime.generation.prompts import room, token_rows
from eptx.runtime.generation.settings import GenerationSettings
from eptx.runtime.generation.stream import pieces


class Writer:
    """A bundle that answers prompts; its back end is opened when it is first needed.

    Args:
        bundle: a checked bundle, which may also be one that does not generate.
        provider: ``cpu`` or ``cuda``.
        threads: how many threads one operator may use; None lets ONNX Runtime choose.
        tokenizer: gives the bundle's tokenizer.
    """

    def __init__(self, bundle: Bundle, provider: str, threads: int | None, tokenizer: Callable[[], Tokenizer]) -> None:
        self._bundle = bundle
        self._how = (provider, threads)
        self._tokenizer = tokenizer
        self._tasks = TaskChooser(bundle.manifest)
        self._opened: TokenGenerator | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the back end has been needed."""
        return self._opened is not None

    @property
    def kernels(self) -> Kernels:
        """What runs the model's own operators; before it is open, what is meant to."""
        return self._opened.kernels if self._opened is not None else choose_kernels(self._bundle, self._how[0])

    def stream(
        self, prompts: Any, task: str | Sequence[str] | None, max_new_tokens: int | None, settings: Mapping[str, Any]
    ) -> Stream:
        """Checks a request and starts to answer it; see `eptx.runtime.Session.stream`."""
        manifest = self._bundle.manifest
        if manifest.generation is None:
            raise RequestError("this bundle does not generate text; use Session.run")
        chosen = GenerationSettings.of(max_new_tokens=1 if max_new_tokens is None else max_new_tokens, **settings)
        rows = token_rows(prompts, lambda texts: self._tokenizer().encode(texts), manifest)
        chosen = replace(chosen, max_new_tokens=room(rows, manifest, max_new_tokens))
        ids = self._tasks.choose(task, None, len(rows))
        decode = self._decode(chosen)
        steps = self._backend().tokens(rows, ids, chosen)
        answers = pieces(steps, len(rows), manifest.generation.eos, chosen, decode)
        return Stream(answers, lambda: [known.name for known in self._tasks.rows(ids, {}, len(rows))])

    def _backend(self) -> TokenGenerator:
        with self._lock:
            if self._opened is None:
                self._opened = _open(self._bundle, *self._how)
            return self._opened

    def _decode(self, settings: GenerationSettings) -> Callable[[Sequence[int]], str]:
        if self._bundle.file("tokenizer.json") is None:
            if settings.stop:
                raise RequestError("stop needs a tokenizer, and this bundle has no tokenizer.json")
            return lambda ids: ""
        return self._tokenizer().decode


def _open(bundle: Bundle, provider: str, threads: int | None) -> TokenGenerator:
    if bundle.manifest.encoder is None:
        from eptx.runtime.generation.decoder import DecoderGenerator

        return DecoderGenerator(bundle, provider, threads)
    from eptx.runtime.generation.seq2seq import Seq2SeqGenerator

    return Seq2SeqGenerator(bundle, provider, threads)
