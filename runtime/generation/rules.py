"""What the tokens of an answer obey, as transformers' logits processors have it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eptx.bundle import AnswerRules
from eptx.runtime.outputs import Array


class AnswerLogits:
    """The logits of a batch's answers, with the tokens that a rule forbids at minus infinity.

    Args:
        rules: of the bundle.
        eos: the tokens that end an answer.
        prompts: each row's tokens.
    """

    def __init__(self, rules: AnswerRules, eos: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        self._rules, self._eos = rules, list(eos)
        size = rules.encoder_no_repeat_ngram_size
        self._of_prompts = [_followers(prompt, size) if size else {} for prompt in prompts]

    def obey(self, logits: Array, answers: Sequence[Sequence[int]], *, first: bool) -> Array:
        """The logits [rows, vocabulary] of the next token.

        Args:
            logits: as the model gives them; changed in place.
            answers: each row's tokens so far, from the one that starts an answer.
            first: whether the token is the first behind those that are forced.
        """
        rules = self._rules
        if rules.repetition_penalty != 1:
            for row, answer in zip(logits, answers, strict=True):
                held = np.unique(np.asarray(answer))
                penalty = np.float32(rules.repetition_penalty)
                row[held] = np.where(row[held] < 0, row[held] * penalty, row[held] / penalty)
        size = rules.no_repeat_ngram_size
        for row, answer, known in zip(logits, answers, self._of_prompts, strict=True):
            if size:
                row[_next_of(answer, _followers(answer, size), size)] = -np.inf
            if known:
                row[_next_of(answer, known, rules.encoder_no_repeat_ngram_size)] = -np.inf
        if len(answers[0]) < rules.min_length:
            logits[:, self._eos] = -np.inf
        logits[:, list(rules.suppress_tokens)] = -np.inf
        if first:
            logits[:, list(rules.begin_suppress_tokens)] = -np.inf
        return logits


def _followers(tokens: Sequence[int], size: int) -> dict[tuple[int, ...], list[int]]:
    """Every run of ``size`` - 1 tokens -> the tokens that follow it somewhere."""
    found: dict[tuple[int, ...], list[int]] = {}
    for start in range(len(tokens) - size + 1):
        found.setdefault(tuple(tokens[start : start + size - 1]), []).append(tokens[start + size - 1])
    return found


def _next_of(answer: Sequence[int], followers: dict[tuple[int, ...], list[int]], size: int) -> list[int]:
    """The tokens that would complete a run that was there already."""
    return followers.get(tuple(answer[len(answer) - size + 1 :]), []) if len(answer) + 1 >= size else []
