"""Answers prompts: from a request to the pieces of its answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from eptx.bundle import Bundle
from eptx.errors import RequestError
from eptx.runtime.generation.backend import TokenGenerator
from eptx.runtime.generation.decoder import DecoderGenerator
from eptx.runtime.generation.outputs import Stream
from eptx.runtime.generation.prompts import check_ends, feature_rows, max_answer, token_rows
from eptx.runtime.generation.request import GenerationRequest, Prompt
from eptx.runtime.generation.seq2seq import Seq2SeqGenerator
from eptx.runtime.generation.settings import ChatOptions, GenerationSettings, SearchOptions
from eptx.runtime.generation.stream import pieces
from eptx.runtime.ort.kernels import Kernels, choose_kernels
from eptx.runtime.ort.opened import Opened
from eptx.runtime.requests.chat.template import ChatTemplate, Messages
from eptx.runtime.requests.tasks import TaskChooser, TaskNames
from eptx.runtime.requests.tokenizer import Tokenizer

_log = logging.getLogger("eptx.runtime")
#: Options of a chat that are its template's.
_OF_TEMPLATE = ("tools", "variables")


class TextGenerator:
    """A bundle that answers prompts; its back end is opened when it is first needed.

    Args:
        bundle, provider, threads: as `TokenGenerator` takes them; the bundle may also be one that does not generate.
        tokenizer: gives the bundle's tokenizer.
    """

    def __init__(self, bundle: Bundle, provider: str, threads: int | None, tokenizer: Callable[[], Tokenizer]) -> None:
        self._bundle = bundle
        self._how = (provider, threads)
        self._tokenizer = tokenizer
        self._tasks = TaskChooser(bundle.manifest)
        self._opened: Opened[TokenGenerator] = Opened(self._open)
        self._warned = False

    @property
    def is_open(self) -> bool:
        """Whether the back end is open."""
        return self._opened.value is not None

    @property
    def kernels(self) -> Kernels:
        """What runs the model's own operators, or will run them once it is open."""
        opened = self._opened.value
        return opened.kernels if opened is not None else choose_kernels(self._bundle, self._how[0])

    @property
    def chats(self) -> bool:
        """Whether the bundle generates, and has a chat template."""
        return self._bundle.manifest.generation is not None and self._template is not None

    def check(self, prompts: Any, task: TaskNames, options: SearchOptions) -> GenerationRequest:
        """See `eptx.runtime.Session.check_prompts`."""
        request = self._checked(prompts, task, options)
        self._warn_of_bare_texts([prompts] if isinstance(prompts, str) else prompts)
        return request

    def _checked(self, prompts: Any, task: TaskNames, options: SearchOptions) -> GenerationRequest:
        manifest = self._bundle.manifest
        if manifest.generation is None:
            raise RequestError("this bundle does not generate text; use Session.run")
        settings = GenerationSettings.of(options)
        special = options.get("add_special_tokens")
        if special is not None and not isinstance(special, bool):
            raise RequestError("add_special_tokens must be true or false")
        rows = self._rows(prompts, special)
        settings = replace(settings, max_new_tokens=max_answer(rows, manifest, options.get("max_new_tokens")))
        ids = self._tasks.choose(task, None, len(rows))
        if self._reads_tokens:
            texts = (np.asarray(row, np.int64) for row in rows)
            self._tasks.check_tokens(texts, ids, lambda row, at, token: f"prompt {row} has token {token} at {at[0]}")
        if settings.stop and not self._has_tokenizer:
            raise RequestError("stop needs a tokenizer, and this bundle has no tokenizer.json")
        return GenerationRequest(rows, [settings.max_new_tokens] * len(rows), ids, settings)

    def check_chat(
        self,
        messages: Messages,
        task: TaskNames,
        options: ChatOptions,
    ) -> GenerationRequest:
        """See `eptx.runtime.Session.check_chat`."""
        template = self._template
        if template is None:
            raise RequestError("this bundle has no chat template: its base was not trained to chat; send a prompt")
        prompts = template.render(messages, options.get("tools"), options.get("variables"))
        search: dict[str, Any] = {name: value for name, value in options.items() if name not in _OF_TEMPLATE}
        if search.get("add_special_tokens") is None:
            search["add_special_tokens"] = False  # the template writes them
        return self._checked(prompts, task, cast(SearchOptions, search))

    @cached_property
    def _template(self) -> ChatTemplate | None:
        return ChatTemplate.of(self._bundle)

    def _warn_of_bare_texts(self, prompts: Any) -> None:
        """Warns once of a text that no chat template was put around, where the model was trained with one."""
        if self._warned or isinstance(prompts, Mapping) or not all(isinstance(text, str) for text in prompts):
            return
        if self._template is not None and not all(self._tokenizer().holds_special(text) for text in prompts):
            self._warned = True
            _log.warning(
                "the bundle has a chat template, and this prompt is not in its form, so the answer may be empty or "
                "poor: use Session.chat (eptx run --chat, /v1/chat/completions), or put the template around the prompt"
            )

    def _rows(self, prompts: Any, special: bool | None) -> Sequence[Prompt]:
        manifest = self._bundle.manifest
        assert manifest.generation is not None
        if manifest.encoder is not None and not self._reads_tokens:
            return feature_rows(prompts, manifest.encoder)
        rows = token_rows(prompts, lambda texts: self._tokenizer().encode_prompts(texts, special), manifest)
        if manifest.encoder is None:
            check_ends(rows, manifest.generation.pad)
        return rows

    def stream(self, request: GenerationRequest) -> Stream:
        """See `eptx.runtime.Session.stream_checked`."""
        generation, ids, rows = self._bundle.manifest.generation, request.task_ids, len(request.prompts)
        assert generation is not None
        settings = request.settings
        steps = self._opened.get().tokens(request.prompts, ids, settings)
        tokenizer = self._tokenizer() if self._has_tokenizer else None
        last = generation.rules.forced_eos if generation.rules is not None else None
        answers = pieces(steps, request.lengths, generation.eos, settings.stop, tokenizer, last, settings.top_logprobs)
        return Stream(answers, lambda: [known.name for known in self._tasks.rows(ids, {}, rows)])

    def close(self) -> None:
        """Lets the back end go for good."""
        self._opened.close()

    @property
    def _reads_tokens(self) -> bool:
        encoder = self._bundle.manifest.encoder
        return encoder is None or any(spec.name == "input_ids" for spec in encoder.inputs)

    @property
    def _has_tokenizer(self) -> bool:
        return self._bundle.file("tokenizer.json") is not None

    def _open(self) -> TokenGenerator:
        kind = DecoderGenerator if self._bundle.manifest.encoder is None else Seq2SeqGenerator
        return kind(self._bundle, *self._how)
