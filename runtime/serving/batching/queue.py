"""The queue of one model, and the threads that answer the jobs in it, many in one batch."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from eptx.runtime.serving.batching.scheduler import Waiting
from eptx.runtime.serving.errors import Refused
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics

J = TypeVar("J", bound=Waiting)


class JobQueue(ABC, Generic[J]):
    """Jobs that wait. A subclass says when a batch begins, which jobs it holds, and how it is answered.

    Args:
        name: the model's, for the metrics.
        limits: of the queue.
        metrics: that count.
        threads: how many batches may run at once.
    """

    #: What messages call the rows of its jobs.
    rows_name = "rows"

    def __init__(self, name: str, limits: Limits, metrics: Metrics, threads: int = 1) -> None:
        self._name, self._limits, self._metrics = name, limits, metrics
        self._waiting: dict[J, None] = {}  # the oldest first
        self._rows = self._running = 0  # rows that wait, batches that run
        self._closing = False
        self._changed = threading.Condition()
        self._turn = threading.Lock()  # one thread at a time chooses a batch; two would halve it
        self._threads = [threading.Thread(target=self._work, name=f"eptx {name}", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: J) -> None:
        """Puts a job into the queue.

        Raises:
            Refused: 429, the queue is full.
        """
        with self._changed:
            if self._rows + job.rows > self._limits.queue:
                wait = f"{self._rows} {self.rows_name} wait"
                raise Refused(429, f"the queue is full: {wait}; try again later", {"Retry-After": "1"})
            self._waiting[job] = None
            self._count(job.rows)
            self._changed.notify()

    def drop(self, job: J) -> None:
        """Takes a job out of the queue, if it is still there: its client no longer waits."""
        with self._changed:
            self._remove(job)

    def close(self) -> None:
        """Answers the jobs that wait, then ends the threads; blocks until they have ended."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        for thread in self._threads:
            thread.join()

    @abstractmethod
    def _wait_for_more(self, idle: bool) -> None:
        """Waits, with the lock held, until the next batch is to begin; ``idle``: no job waited before."""

    @abstractmethod
    def _choose(self) -> list[J]:
        """The next batch, of the jobs that wait."""

    @abstractmethod
    def _answer(self, batch: Sequence[J]) -> None:
        """Answers a batch; never raises."""

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                self._answer(batch)
                with self._changed:
                    self._running -= 1
                    self._changed.notify()

    def _next(self) -> list[J] | None:
        """The next batch, empty if all jobs left the queue meanwhile; None after `close`."""
        with self._turn, self._changed:
            idle = not self._waiting
            while not self._waiting and not self._closing:
                self._changed.wait()
            self._wait_for_more(idle)
            if not self._waiting:
                return None if self._closing else []
            batch = self._choose()
            for job in batch:
                self._remove(job)
            self._running += 1
            return batch

    def _remove(self, job: J) -> None:
        if job in self._waiting:
            del self._waiting[job]
            self._count(-job.rows)

    def _count(self, rows: int) -> None:
        self._rows += rows
        self._metrics.queued(self._name, rows)
