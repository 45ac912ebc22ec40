"""How fast language models answer: what a prompt takes until its first token, and each token after it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from eptx.errors import UsageError
from eptx.manifest.names import BASE_TASK
from eptx.runtime.session import Session
from eptx.runtime.timing import spread

#: Tokens of an answer; a prompt whose answer ends by itself before half of them is not timed if another one's does not.
NEW_TOKENS = 32
_PROMPTS = 8
_WORDS = 150  # as `eptx.runtime.timing` draws them


def generates(session: Session) -> bool:
    """Whether it answers prompts of tokens."""
    return session.manifest.generation is not None and any(i.name == "input_ids" for i in _reads(session))


def generation_speeds(
    sessions: Sequence[Session], batch: int, length: int, runs: int, task: str | None = None
) -> list[dict[str, float | None]]:
    """Times greedy answers of `NEW_TOKENS` tokens to random prompts of one shape, the sessions in turn.

    Args:
        sessions: of bundles that `generates` is true of.
        batch: prompts that are answered together.
        length: tokens of each.
        runs: timed runs of each session, after one that is not.
        task: of all prompts of the first session; None, and of the others: all tasks but ``base`` in turn.

    Returns:
        for each session, with percentiles as `eptx.runtime.timing.spread` names them: "first_token_milliseconds",
        "prefill_tokens_per_second" (the prompts' tokens, until the first token is there) and
        "decode_tokens_per_second" (of all answers together, after their first tokens; None where answers end at once).

    Raises:
        UsageError: a model does not read so much.
    """
    asked = [_Asked(session, batch, length, task if session is sessions[0] else None) for session in sessions]
    times: list[list[tuple[float, float, int]]] = [[] for _ in asked]
    for number in range(runs + 1):
        for place in range(len(asked)) if number % 2 else reversed(range(len(asked))):
            took = asked[place].run()
            if number:
                times[place].append(took)
    return [_speeds(own, batch * length) for own in times]


class _Asked:
    """A session and the prompts that it is asked."""

    def __init__(self, session: Session, batch: int, length: int, task: str | None) -> None:
        generation, most = session.manifest.generation, session.manifest.max_length
        assert generation is not None
        self._new = NEW_TOKENS if generation.longest is None else min(NEW_TOKENS, generation.longest - 1)
        decoded = 0 if session.manifest.encoder is not None else self._new
        if most is not None and length + decoded > most:
            also = f" and {decoded} of the answer" if decoded else ""
            raise UsageError(f"{batch}x{length}: {length} tokens of a prompt{also} are more than the model's {most}")
        self._session, self._batch = session, batch
        tasks = [name for name in session.tasks if name != BASE_TASK] if task is None else [task]
        self._task = [tasks[row % len(tasks)] for row in range(batch)] if len(session.tasks) > 1 else None
        drawn = [self._draw(np.random.default_rng(seed), length) for seed in range(_PROMPTS)]
        self._prompts = next(filter(self._is_answered, drawn), drawn[0])

    def run(self) -> tuple[float, float, int]:
        """Seconds to the first token of all rows, seconds from there to the last, and the tokens between."""
        start = time.perf_counter()
        moments = [time.perf_counter() for _ in self._pieces()]
        first = moments[self._batch - 1] - start
        return first, moments[-1] - start - first, len(moments) - self._batch

    def _pieces(self) -> Any:
        return self._session.stream(self._prompts, self._task, max_new_tokens=self._new)

    def _is_answered(self, prompts: list[list[int]]) -> bool:
        self._prompts = prompts
        return 2 * sum(1 for _ in self._pieces()) >= self._new * self._batch

    def _draw(self, rng: np.random.Generator, length: int) -> list[list[int]]:
        generation = self._session.manifest.generation
        assert generation is not None
        words = min(_WORDS, self._session.manifest.shared_vocab_size or _WORDS)
        free = sorted(set(range(words)) - {*generation.eos, generation.pad})
        rows: list[list[int]] = rng.choice(free, (self._batch, length)).tolist()
        return rows


def _reads(session: Session) -> Sequence[Any]:
    encoder = session.manifest.encoder
    return session.manifest.inputs if encoder is None else encoder.inputs


def _speeds(times: Sequence[tuple[float, float, int]], tokens: int) -> dict[str, float | None]:
    more = [count / seconds for _, seconds, count in times if count]
    decode: dict[str, float | None] = {"decode_tokens_per_second": None}
    return {
        **spread("first_token_milliseconds", [1e3 * first for first, _, _ in times]),
        **spread("prefill_tokens_per_second", [tokens / first for first, _, _ in times]),
        **(spread("decode_tokens_per_second", more) if more else decode),
    }
