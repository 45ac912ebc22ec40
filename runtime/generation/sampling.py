"""Chooses each row's next token from its logits."""

from __future__ import annotations

import numpy as np

from eptx.runtime.generation.settings import GenerationSettings
from eptx.runtime.outputs import Array


class Sampler:
    """Chooses tokens as the settings say.

    Every row draws from a random stream of its own, made of the seed and the row's number. So a row's tokens do not
    depend on the other rows.

    Args:
        settings: of the call.
        rows: of the batch.
    """

    def __init__(self, settings: GenerationSettings, rows: int) -> None:
        self._settings = settings
        streams = np.random.SeedSequence(settings.seed).spawn(rows)
        self._streams = [] if settings.greedy else [np.random.default_rng(stream) for stream in streams]

    def choose(self, logits: Array) -> Array:
        """The next tokens, int64 [rows], from logits [rows, vocabulary]; of equal logits the first is taken."""
        if self._settings.greedy:
            return np.asarray(logits.argmax(axis=1), np.int64)
        drawn = [self._draw(row, stream) for row, stream in zip(logits, self._streams, strict=True)]
        return np.array(drawn, np.int64)

    def _draw(self, logits: Array, stream: np.random.Generator) -> int:
        tokens = self._candidates(logits)
        with np.errstate(over="ignore"):  # at a tiny temperature only the greatest counts
            weights = np.exp((logits[tokens].astype(np.float64) - logits.max()) / self._settings.temperature)
        sums = weights.cumsum()
        top_p = self._settings.top_p
        if top_p is not None and top_p < 1:
            sums = sums[: int(np.searchsorted(sums, top_p * sums[-1])) + 1]
        place = int(np.searchsorted(sums, stream.random() * sums[-1], side="right"))
        return int(tokens[min(place, len(sums) - 1)])

    def _candidates(self, logits: Array) -> Array:
        """The tokens that may be drawn; sorted by likelihood if ``top_p`` cuts off the end."""
        count, top_k = len(logits), self._settings.top_k
        tokens: Array = np.arange(count)
        unlikely = np.negative(logits)
        if top_k is not None and top_k < count:
            tokens = np.sort(np.argpartition(unlikely, top_k - 1)[:top_k])
        if self._settings.top_p is not None:
            tokens = tokens[np.argsort(unlikely[tokens], kind="stable")]
        return tokens
