"""One prompt in the queue of a language model, and a batch of them answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from eptx.runtime.generation.outputs import Piece
from eptx.runtime.generation.request import GenerationRequest, join
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.session import Session


@dataclass(eq=False)
class PromptJob:
    """A checked prompt on its way through the queue and a batch.

    Attributes:
        request: of one row.
        batch_key: prompts of equal keys may share a batch; None: the prompt is answered alone.
        send: takes the pieces of the answer, the last of which has a reason, or an error; called in another thread.
        cancelled: whether the client no longer waits; set by any thread.
        queued: when it entered the queue, in `time.monotonic`'s seconds.
        rows: 1.
        length: tokens of the prompt.
        max_new_tokens: how many tokens the answer may get.
    """

    request: GenerationRequest
    batch_key: Hashable | None
    send: Callable[[Piece | Exception], None]
    cancelled: bool = False
    queued: float = field(default_factory=time.monotonic)
    rows: int = 1
    length: int = field(init=False)
    max_new_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        (prompt,), (self.max_new_tokens,) = self.request.prompts, self.request.lengths
        self.length = len(prompt)


class BatchGenerator:
    """Answers the prompts of one batch; may be used from many threads.

    Args:
        name: the model's, for the metrics.
        session: that generates.
        metrics: that count.
    """

    def __init__(self, name: str, session: Session, metrics: Metrics) -> None:
        self._name, self._session, self._metrics = name, session, metrics

    def __call__(self, jobs: Sequence[PromptJob]) -> None:
        """Sends every job its pieces as they come, and ends when no client waits for more.

        If a batch fails before its first piece, each of its prompts is answered alone, so that only the prompt at fault
        gets the error. If it fails later, every job whose answer is incomplete gets the error.
        """
        live, counts = dict(enumerate(jobs)), [0] * len(jobs)
        try:
            self._generate(live, counts)
        except Exception as error:
            if any(counts) or len(jobs) == 1:
                for job in live.values():
                    job.send(error)
                return
            for job in jobs:
                if not job.cancelled:
                    self([job])

    def _generate(self, live: dict[int, PromptJob], counts: list[int]) -> None:
        """Removes from ``live`` the jobs that are complete or cancelled; counts every row's tokens."""
        provider = self._session.provider
        with closing(self._session.stream_checked(join([job.request for job in live.values()]))) as stream:
            for piece in stream:
                if not any(counts):
                    self._metrics.generating(self._name, provider, len(counts))
                job = live.get(piece.row)
                if job is None:
                    continue
                counts[piece.row] += 1
                if job.cancelled or piece.finish_reason is not None:
                    del live[piece.row]
                    self._metrics.generated(self._name, stream.tasks[piece.row], provider, counts[piece.row])
                if not job.cancelled:
                    job.send(piece)
                if not live:
                    return
