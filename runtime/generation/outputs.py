"""The answers of a session's generation: pieces as they come, or all of them collected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from eptx.runtime.outputs import Array

#: Why an answer ended: a token that ends it, a stop text, or the number of tokens.
FinishReason = Literal["stop", "stop_string", "length"]


@dataclass(frozen=True)
class Logprobs:
    """How likely one token of an answer was, by the model itself: before a temperature, ``top_k`` or ``top_p``.

    Attributes:
        token: the natural logarithm of its probability.
        top: the most likely tokens and theirs, the likeliest first; as many as ``top_logprobs`` says.
    """

    token: float
    top: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, logits: Array, token: int, top: int) -> Self:
        """What one row's logits [vocabulary] say of a token, and of the ``top`` likeliest."""
        wide = logits.astype(np.float64)
        logs = wide - wide.max()
        logs -= np.log(np.exp(logs).sum())
        unlikely = np.negative(logs)
        likeliest = np.argpartition(unlikely, top - 1)[:top] if 0 < top < len(logs) else np.arange(len(logs))
        ranked = likeliest[np.argsort(unlikely[likeliest], kind="stable")][:top]
        return cls(float(logs[token]), tuple((int(i), float(logs[i])) for i in ranked))


@dataclass(frozen=True)
class Piece:
    """One token of one row's answer.

    Attributes:
        row: the prompt that it answers.
        token_id: the token.
        text: the text that is final with this token; may be empty, and always is if the bundle has no tokenizer.
        finish_reason: why the answer ended, with its last token; else None.
        logprobs: how likely the token was, where ``top_logprobs`` is given.
    """

    row: int
    token_id: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class Generated:
    """The answers of one call; everything is in the order of the prompts.

    Attributes:
        texts: without special tokens, and without the stop text that ended it; empty if the bundle has no tokenizer.
        token_ids: all generated tokens, with the one that ended the answer.
        finish_reasons: "stop" (a token that ends answers), "stop_string" or "length".
        tasks: name of each row's task; with ``task="auto"``, the one that was inferred.
    """

    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    finish_reasons: tuple[FinishReason, ...]
    tasks: tuple[str, ...]


class Stream(Iterator[Piece]):
    """The pieces of one call's answers, as they come; the rows of a batch take turns.

    Args:
        pieces: gives the pieces.
        tasks: gives the name of each row's task.
    """

    def __init__(self, pieces: Generator[Piece, None, None], tasks: Callable[[], Sequence[str]]) -> None:
        self._pieces = pieces
        self._tasks = tasks

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Name of each row's task; a task to be inferred is ``auto`` until the first piece."""
        return tuple(self._tasks())

    def close(self) -> None:
        """Ends the answers here, and frees their memory."""
        self._pieces.close()

    async def in_threads(self) -> AsyncGenerator[Piece, None]:
        """The pieces, for an event loop: every step runs in a thread of the loop's executor.

        Closed or cancelled, it ends the answers as soon as the step that runs is over.
        """
        loop = asyncio.get_running_loop()
        step: asyncio.Future[Piece | None] | None = None
        try:
            while True:
                step = loop.run_in_executor(None, next, self, None)
                piece = await asyncio.shield(step)
                if piece is None:
                    return
                yield piece
        finally:
            if step is None or step.done():
                self.close()
            else:  # a generator cannot be closed while it runs

                def close(ended: asyncio.Future[Piece | None]) -> None:
                    ended.exception()  # nobody waits for it any more
                    self.close()

                step.add_done_callback(close)

    def collect(self) -> Generated:
        """Collects the pieces that are still to come."""
        pieces = list(self)
        rows = [[piece for piece in pieces if piece.row == row] for row in range(len(self.tasks))]
        return Generated(
            texts=tuple("".join(piece.text for piece in row) for row in rows),
            token_ids=tuple(tuple(piece.token_id for piece in row) for row in rows),
            finish_reasons=tuple(next((p.finish_reason for p in row if p.finish_reason), "length") for row in rows),
            tasks=self.tasks,
        )
