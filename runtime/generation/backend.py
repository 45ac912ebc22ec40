"""The back ends that generate tokens: GenAI for decoders, our own loop for encoder-decoders."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from eptx.runtime.generation.request import Prompt
from eptx.runtime.generation.settings import GenerationSettings
from eptx.runtime.ort.kernels import Kernels
from eptx.runtime.outputs import Array

#: Takes a token's place in a row that is done.
DONE = -1


class TokenGenerator(Protocol):
    """Generates the tokens of a batch's answers, step by step.

    A constructor takes a checked bundle, a provider and the threads of one operator (None lets
    ONNX Runtime choose), and opens the models. It raises `BundleError`, `NotSupportedError` or `LimitError` if that
    fails.

    Attributes:
        kernels: what runs the model's own operators.
    """

    kernels: Kernels

    def tokens(
        self, prompts: Sequence[Prompt], task_ids: Array | None, settings: GenerationSettings
    ) -> Generator[Array, None, None]:
        """One array int64 [rows] for each step: every row's next token, `DONE` for rows that are done.

        A row is done after one of the manifest's ``eos`` tokens, which is given like any other. The iterator ends after
        ``max_new_tokens`` steps, or when all rows are done. Closing it frees its memory. Several iterators of one back
        end may run in several threads.

        ``settings.stop`` is ignored. The rows' answers do not depend on each other, but for two cases: one seed serves
        the batch, and a route may be taken over the whole batch.

        Args:
            prompts: each row's tokens, checked: no row is empty, all tokens are of the vocabulary, and no row is longer
                than the model reads, in a decoder together with ``max_new_tokens``. Of an encoder that reads no tokens,
                each row's array.
            task_ids: int64 [rows], -1 to infer: the inferred task replaces it in place before the first step. None: the
                model has no input ``task_id``.
            settings: checked.

        Raises:
            RequestError: ONNX Runtime fails on this request.
            LimitError: the batch needs more memory than there is.
        """
        ...
