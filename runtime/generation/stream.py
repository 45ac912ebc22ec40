"""From a back end's tokens to the pieces of the answers."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import replace

from eptx.runtime.generation.backend import Step
from eptx.runtime.generation.outputs import FinishReason, Logprobs, Piece
from eptx.runtime.generation.text import Detokenizer, StopTexts
from eptx.runtime.requests.tokenizer import Tokenizer


def pieces(
    steps: Generator[Step, None, None],
    lengths: Sequence[int],
    eos: Sequence[int],
    stop: Sequence[str],
    tokenizer: Tokenizer | None,
    forced_eos: int | None = None,
    top_logprobs: int | None = None,
) -> Generator[Piece, None, None]:
    """The pieces of the steps: one for each token of each row that is not done.

    Args:
        steps: as `TokenGenerator.tokens` gives them; closed as soon as all rows are done.
        lengths: how long each row's answer may get; there are as many steps as the longest needs.
        eos: the tokens that end an answer.
        stop: the texts that end one; they may hold special tokens.
        tokenizer: gives the tokens' text; None: the pieces have no text.
        forced_eos: the token in the last place of an answer that gets so long.
        top_logprobs: how many of the likeliest tokens a piece tells of, where the steps have logits.
    """
    live = {row: _Row(row, length, eos, stop, tokenizer, forced_eos) for row, length in enumerate(lengths)}
    with contextlib.closing(steps):
        for step in steps:
            for row in tuple(live):
                piece = live[row].add(int(step.tokens[row]))
                if step.logits is not None:
                    piece = replace(piece, logprobs=Logprobs.of(step.logits[row], piece.token_id, top_logprobs or 0))
                if piece.finish_reason is not None:
                    del live[row]
                yield piece
            if not live:
                return


class _Row:
    """One row's answer so far."""

    def __init__(
        self,
        row: int,
        length: int,
        eos: Sequence[int],
        stop: Sequence[str],
        tokenizer: Tokenizer | None,
        forced_eos: int | None,
    ) -> None:
        self._row = row
        self._eos = frozenset(eos)
        self._left, self._forced_eos = length, forced_eos
        self._special = tokenizer.special_text if tokenizer is not None else lambda token: ""
        self._text = Detokenizer(tokenizer.decode if tokenizer is not None else lambda ids: "")
        self._stop = StopTexts(stop)

    def add(self, token: int) -> Piece:
        self._left -= 1
        reason: FinishReason | None = None
        if token in self._eos:
            reason = "stop"
        elif self._left == 0:
            reason = "length"
            token = token if self._forced_eos is None else self._forced_eos
        text, stopped = self._stop.add("" if reason == "stop" else self._text.add(token), self._special(token))
        if reason is not None and not stopped:
            text += self._stop.finish()
        return Piece(self._row, token, text, "stop_string" if stopped else reason)
