"""The back ends that generate tokens: GenAI for decoders, our own loop for encoder-decoders."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from eptx.runtime.generation.request import Prompt
from eptx.runtime.generation.settings import GenerationSettings
from eptx.runtime.ort.kernels import Kernels
from eptx.runtime.outputs import Array

#: Takes a token's place in a row that is done.
DONE = -1


@dataclass(frozen=True)
class Step:
    """One step of a batch's answers.

    Attributes:
        tokens: int64 [rows], every row's next token, `DONE` for rows that are done.
        logits: float [rows, vocabulary] of which the tokens were chosen, as the model gave them (of an encoder-decoder,
            as its rules left them); None unless ``top_logprobs`` asks for them.
    """

    tokens: Array
    logits: Array | None = None


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
    ) -> Generator[Step, None, None]:
        """The steps of the answers.

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
