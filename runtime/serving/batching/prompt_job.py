"""One batch of a language model's answers, written to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from eptx.runtime.generation.outputs import Piece
from eptx.runtime.generation.request import Request, joined
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.session import Session


@dataclass(eq=False)
class PromptJob:
    """A checked prompt on its way through the queue and a batch.

    Attributes:
        request: of one row.
        kind: what must be equal for two prompts to share a batch; None: this one shares none.
        give: takes the answer's pieces, the last of which has a reason, or an error; called in the writing thread.
        gone: whether nobody waits for the answer any more; set by any thread.
        came: when it came into the queue, in `time.monotonic`'s seconds.
        rows: 1.
        length: tokens of the prompt.
        room: how many tokens the answer may get.
    """

    request: Request
    kind: Hashable | None
    give: Callable[[Piece | Exception], None]
    gone: bool = False
    came: float = field(default_factory=time.monotonic)
    rows: int = 1
    length: int = field(init=False)
    room: int = field(init=False)

    def __post_init__(self) -> None:
        (prompt,), (self.room,) = self.request.prompts, self.request.lengths
        self.length = len(prompt)


class BatchWriter:
    """Writes the answers of prompts that share a batch; may be used from many threads.

    Args:
        name: the model's, for the metrics.
        session: that writes.
        metrics: that count.
    """

    def __init__(self, name: str, session: Session, metrics: Metrics) -> None:
        self._name, self._metrics = name, metrics
        self._writer, self._provider = session._writer, session.provider

    def __call__(self, jobs: Sequence[PromptJob]) -> None:
        """Gives every job its pieces as they come, and ends when nobody waits for more.

        A batch that fails before its first piece is written prompt by prompt, so that only the prompt that it failed
        for gets the error. When one fails later, all whose answers are not whole get it.
        """
        live, counts = dict(enumerate(jobs)), [0] * len(jobs)
        try:
            self._write(live, counts)
        except Exception as error:
            if any(counts) or len(jobs) == 1:
                for job in live.values():
                    job.give(error)
                return
            for job in jobs:
                if not job.gone:
                    self([job])

    def _write(self, live: dict[int, PromptJob], counts: list[int]) -> None:
        """Takes the jobs out whose answers are whole, and those that nobody waits for; counts every row's tokens."""
        with closing(self._writer.write(joined([job.request for job in live.values()]))) as stream:
            for piece in stream:
                if not any(counts):
                    self._metrics.wrote(self._name, self._provider, len(counts))
                job = live.get(piece.row)
                if job is None:
                    continue
                counts[piece.row] += 1
                if job.gone or piece.finish_reason is not None:
                    del live[piece.row]
                    self._metrics.generated(self._name, stream.tasks[piece.row], self._provider, counts[piece.row])
                if not job.gone:
                    job.give(piece)
                if not live:
                    return
