"""The queue of a model's requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from eptx.runtime.outputs import Outputs
from eptx.runtime.serving.batching.collate import Arrays, Collator
from eptx.runtime.serving.batching.overhead import USUAL
from eptx.runtime.serving.batching.queue import JobQueue
from eptx.runtime.serving.batching.scheduler import next_batch
from eptx.runtime.serving.errors import Overdue
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.session import Session


@dataclass(eq=False)
class Job:
    """A checked request on its way through the queue.

    Attributes:
        arrays: its inputs, ``task_id`` among them where the model has it.
        rows: how many.
        length: tokens of each row, padding included.
        batch_key: jobs of equal keys may share a run; None: the job runs alone.
        task: the task of its rows, for the metrics.
        deadline: when it is too late to start, in `time.monotonic`'s seconds.
        answer: set in the event loop that made the job.
        queued, started: when it entered the queue and when its run began, by the same clock.
    """

    arrays: Arrays
    rows: int
    length: int
    batch_key: Hashable | None
    task: str
    deadline: float
    answer: asyncio.Future[Outputs]
    queued: float = field(default_factory=time.monotonic)
    started: float = 0.0


class Batcher(JobQueue[Job]):
    """Answers jobs in one thread: the jobs that wait when a run ends share the next one.

    If the model is idle when a job comes, it waits a moment for more. If a run of several jobs fails, each of them runs
    alone, so that only the job at fault gets the error.

    Args:
        name: the model's, for the metrics.
        session: that answers.
        collator: that makes one batch of several jobs.
        limits: of the queue and of one run.
        metrics: that count.
        overhead: of a run, in tokens (see `run_overhead`).
    """

    def __init__(
        self, name: str, session: Session, collator: Collator, limits: Limits, metrics: Metrics, overhead: int = USUAL
    ) -> None:
        self._session, self._collator, self._overhead = session, collator, overhead
        super().__init__(name, limits, metrics)

    def drop(self, job: Job) -> None:
        """Takes a job out of the queue, and cancels its answer."""
        super().drop(job)
        job.answer.cancel()

    def _wait_for_more(self, idle: bool) -> None:
        """Waits at most ``max_delay`` for more jobs, as long as the batch has room."""
        end = time.monotonic() + self._limits.max_delay
        while idle and self._waiting and self._rows < self._limits.max_batch and not self._closing:
            left = end - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                break
        now = time.monotonic()
        for job in [job for job in self._waiting if job.deadline <= now]:
            self._remove(job)
            self._deliver([(job, Overdue())])

    def _choose(self) -> list[Job]:
        return next_batch(self._waiting, self._limits, self._overhead)

    def _answer(self, batch: Sequence[Job]) -> None:
        try:
            answers: Sequence[Outputs | Exception] = self._run(batch)
        except Exception as error:
            answers = [self._run_alone(job) for job in batch] if len(batch) > 1 else [error]
        self._deliver(list(zip(batch, answers, strict=True)))

    def _run_alone(self, job: Job) -> Outputs | Exception:
        try:
            return self._run([job])[0]
        except Exception as error:
            return error

    def _run(self, batch: Sequence[Job]) -> list[Outputs]:
        requests = [job.arrays for job in batch]
        batched = self._collator.collate(requests)
        started = time.monotonic()
        outputs = self._session.run_checked(batched)
        seconds = time.monotonic() - started
        for job in batch:
            job.started = started
        rows, area = sum(job.rows for job in batch), max(job.length for job in batch)
        tokens = sum(job.rows * job.length for job in batch)
        self._metrics.ran(self._name, self._session.provider, rows, tokens, rows * area, seconds)
        return self._collator.split(outputs, requests)

    def _deliver(self, answers: list[tuple[Job, Outputs | Exception]]) -> None:
        loop = answers[0][0].answer.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set, answers)


def _set(answers: Sequence[tuple[Job, Outputs | Exception]]) -> None:
    for job, answer in answers:
        if job.answer.done():  # dropped while it ran
            continue
        if isinstance(answer, Exception):
            job.answer.set_exception(answer)
        else:
            job.answer.set_result(answer)
