"""The answers of a session's generation: pieces as they come, or all of them collected."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

#: Why an answer ended: a token that ends it, a stop text, or the number of tokens.
FinishReason = Literal["stop", "stop_string", "length"]


@dataclass(frozen=True)
class Piece:
    """One token of one row's answer.

    Attributes:
        row: the prompt that it answers.
        token_id: the token.
        text: the text that is final with this token; may be empty, and always is if the bundle has no tokenizer.
        finish_reason: why the answer ended, with its last token; else None.
    """

    row: int
    token_id: int
    text: str
    finish_reason: FinishReason | None = None


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
