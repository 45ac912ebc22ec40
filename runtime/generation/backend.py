"""What makes tokens: a decoder's back end rides on GenAI, an encoder-decoder's is a loop of ours."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from eptx.runtime.generation.settings import GenerationSettings
from eptx.runtime.ort.kernels import Kernels
from eptx.runtime.outputs import Array

#: In place of a token: the row is done.
DONE = -1


class TokenGenerator(Protocol):
    """Makes the tokens of a batch's answers, step by step.

    It opens its models when it is made: with a `BundleError`, `NotSupportedError` or `LimitError` where that fails.

    Attributes:
        kernels: what runs the model's own operators.
    """

    kernels: Kernels

    def tokens(
        self, prompts: Sequence[Sequence[int]], task_ids: Array | None, settings: GenerationSettings
    ) -> Generator[Array, None, None]:
        """One array int64 [rows] for each step: every row's next token, `DONE` for rows that are done.

        A row is done after it gave one of the manifest's ``eos`` tokens, which it gives like any other. The iterator
        ends after ``max_new_tokens`` steps, or when all rows are done (no array of `DONE` alone comes). It may be
        closed sooner, and then frees what it holds. Several iterators of one back end may run in several threads.

        ``settings.stop`` is not its business. The rows' answers do not depend on each other, except for what is drawn
        (one seed serves the batch) and TuckA routing over the batch.

        Args:
            prompts: each row's tokens, checked: none is empty, all are of the vocabulary, and fit the model's length,
                a decoder's together with ``max_new_tokens``.
            task_ids: int64 [rows], -1 to infer, which is replaced in place by what was inferred before the first step
                comes; None where the model has no input ``task_id``.
            settings: checked.

        Raises:
            RequestError: ONNX Runtime fails on this request.
            LimitError: the batch needs more memory than there is.
        """
        ...
