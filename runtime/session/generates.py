"""What a session answers to prompts and chats."""

from __future__ import annotations

from typing import Unpack

from eptx.runtime.generation.outputs import Generated, Stream
from eptx.runtime.generation.prompts import Prompts
from eptx.runtime.generation.request import GenerationRequest
from eptx.runtime.generation.settings import ChatOptions, SearchOptions
from eptx.runtime.generation.text_generator import TextGenerator
from eptx.runtime.requests.chat.template import Messages
from eptx.runtime.requests.tasks import TaskNames


class Generates:
    """The part of `Session` that generates text."""

    _generator: TextGenerator

    @property
    def chats(self) -> bool:
        """Whether the bundle has a chat template, so that `chat` takes messages.

        Raises:
            BundleError: the template's files are damaged.
        """
        return self._generator.chats

    def generate(self, prompts: Prompts, task: TaskNames = None, **options: Unpack[SearchOptions]) -> Generated:
        """Answers prompts: collects what `stream` gives.

        Args, Raises: see `stream`.
        """
        return self.stream(prompts, task, **options).collect()

    def stream(self, prompts: Prompts, task: TaskNames = None, **options: Unpack[SearchOptions]) -> Stream:
        """Answers prompts token by token: `check_prompts`, then `stream_checked`.

            for piece in session.stream("Once upon a time", task="stories"):
                print(piece.text, end="", flush=True)

        Args, Raises: see `check_prompts` and `stream_checked`.
        """
        return self.stream_checked(self.check_prompts(prompts, task, **options))

    def check_prompts(
        self, prompts: Prompts, task: TaskNames = None, **options: Unpack[SearchOptions]
    ) -> GenerationRequest:
        """Checks prompts and turns them into what `stream_checked` takes. The model is not opened for it.

        Args:
            prompts: one text, a list of texts, or a list of rows of token ids, which may differ in length. Texts are
                taken as they are: no chat template is put around them. For an encoder that reads no tokens, its array
                by name: ``{"input_features": [rows, mels, frames]}``, as the base's feature extractor gives it.
            task: as in `check`; a task that is inferred is inferred from the prompt, and kept.
            options: any of `SearchOptions`.

        Raises:
            RequestError: the prompts, the tasks or an option do not fit; or the bundle does not generate.
            NotSupportedError: ``tokenizers`` is needed and not installed.
        """
        return self._generator.check(prompts, task, options)

    def chat(self, messages: Messages, task: TaskNames = None, **options: Unpack[ChatOptions]) -> Generated:
        """Answers a chat: collects what `stream_chat` gives.

        Args, Raises: see `check_chat` and `stream_checked`.
        """
        return self.stream_chat(messages, task, **options).collect()

    def stream_chat(self, messages: Messages, task: TaskNames = None, **options: Unpack[ChatOptions]) -> Stream:
        """Answers a chat token by token: `check_chat`, then `stream_checked`.

        Args, Raises: see `check_chat` and `stream_checked`.
        """
        return self.stream_checked(self.check_chat(messages, task, **options))

    def check_chat(
        self, messages: Messages, task: TaskNames = None, **options: Unpack[ChatOptions]
    ) -> GenerationRequest:
        """Makes a prompt of a chat with the bundle's chat template, as transformers' ``apply_chat_template`` does.

        Args:
            messages: one chat, the oldest message first, each with ``role`` and ``content``; or several chats.
            task: as in `check_prompts`.
            options: any of `ChatOptions`; the template writes the special tokens, so none are added by default.

        Raises:
            RequestError: the bundle has no chat template, or it does not take the messages; or see `check_prompts`.
            BundleError, LimitError: the template cannot be used, or takes too much time or memory.
            NotSupportedError: ``jinja2`` or ``tokenizers`` are not installed.
        """
        return self._generator.check_chat(messages, task, options)

    def stream_checked(self, request: GenerationRequest) -> Stream:
        """Starts to answer a request that `check_prompts` or `check_chat` gave, or several that were joined.

        Raises:
            NotSupportedError: ``onnxruntime-genai`` or ``tokenizers`` are needed and not installed.
            LimitError: the batch needs more memory than there is.
            BundleError: the model is opened by this call and does not load.
        """
        return self._generator.stream(request)
