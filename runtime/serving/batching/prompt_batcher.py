"""The queue of a language model's prompts, and two threads that answer what waits in it, many prompts in one batch."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from eptx.bundle import Manifest
from eptx.runtime.serving.batching.overhead import USUAL
from eptx.runtime.serving.batching.prompt_job import PromptJob
from eptx.runtime.serving.batching.scheduler import pack
from eptx.runtime.serving.errors import Refused
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics

#: Batches at once: no prompt joins one that has begun, and a new prompt need not wait for the end of a long answer.
_BATCHES = 2
#: Seconds that a prompt waits beside a batch that is being written, for its end or for company, before a second begins:
#: two batches at once slow each other down as much as two rows of one batch do not.
_PATIENCE = 0.5
#: After a batch of several answers its clients may ask again together; waiting for them costs so much of its time.
_AGAIN = 0.05
#: What a step of an answer costs beside its own token, in tokens; of a model of 135 million weights on two cores.
_STEP = 3


class PromptBatcher:
    """Has prompts answered that wait: those that fit each other leave in one batch, whatever their tasks.

    A prompt that comes when nothing is being written waits a moment for others. Beside a batch that is being written
    a second one begins when it is full, or when its oldest prompt has waited half a second.

    Args:
        name: the model's.
        manifest: the bundle's.
        limits: of the queue and of one batch.
        metrics: that count.
        write: answers a batch, and never raises.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        limits: Limits,
        metrics: Metrics,
        write: Callable[[Sequence[PromptJob]], None],
    ) -> None:
        self._name, self._limits, self._metrics, self._write = name, limits, metrics, write
        self._batch_limits = replace(limits, max_batch=limits.generations, queue=max(limits.queue, limits.generations))
        self._context = manifest.max_length if manifest.encoder is None else None
        self._waiting: dict[PromptJob, None] = {}
        self._writing, self._again = 0, 0.0
        self._closing = False
        self._changed = threading.Condition()
        self._turn = threading.Lock()  # one thread at a time looks for a batch; two would share the company
        self._threads = [
            threading.Thread(target=self._work, name=f"eptx {name} writes", daemon=True) for _ in range(_BATCHES)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: PromptJob) -> None:
        """Puts a prompt into the queue.

        Raises:
            Refused: 429, the queue is full.
        """
        with self._changed:
            count = len(self._waiting)
            if count >= self._limits.queue:
                raise Refused(429, f"the queue is full: {count} prompts wait; try again later", {"Retry-After": "1"})
            self._waiting[job] = None
            self._metrics.queued(self._name, 1)
            self._changed.notify()

    def drop(self, job: PromptJob) -> None:
        """Nobody waits for a prompt's answer any more: takes it out of the queue, or has its batch go on without it."""
        job.gone = True
        with self._changed:
            self._remove(job)

    def close(self) -> None:
        """Answers what waits, then ends the threads; blocks until they have."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                began = time.monotonic()
                self._write(batch)
                self._ended(time.monotonic() - began if len(batch) > 1 else 0.0)

    def _ended(self, seconds: float) -> None:
        with self._changed:
            self._writing -= 1
            self._again = time.monotonic() + _AGAIN * seconds
            self._changed.notify()

    def _next(self) -> list[PromptJob] | None:
        """The next batch, empty if all prompts were dropped meanwhile; None when there will be no more."""
        with self._turn, self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            self._linger()
            if not self._waiting:
                return None if self._closing else []
            batch = self._chosen()
            for job in batch:
                self._remove(job)
            self._writing += 1
            return batch

    def _linger(self) -> None:
        """Waits for company of the oldest prompt, as long as there is room for it."""
        while 0 < len(self._waiting) < self._limits.generations and not self._closing:
            oldest = next(iter(self._waiting))
            busy = min(oldest.came + _PATIENCE, math.inf if self._writing else self._again)
            left = max(oldest.came + self._limits.max_delay, busy) - time.monotonic()
            if left <= 0 or oldest.kind is None:
                return
            self._changed.wait(left)

    def _chosen(self) -> list[PromptJob]:
        """The oldest prompt, and those that fit it.

        What a batch costs beside its tokens are the steps of the answers, and so much padding is worth saving them.
        """
        first = next(iter(self._waiting))
        chosen, longest, room = [], 0, 0
        for job in pack(self._waiting, self._batch_limits, max(USUAL, _STEP * first.room)):
            both = max(longest, job.length), max(room, job.room)
            if self._context is None or sum(both) <= self._context:
                chosen.append(job)
                longest, room = both
        return chosen

    def _remove(self, job: PromptJob) -> None:
        if job in self._waiting:
            del self._waiting[job]
            self._metrics.queued(self._name, -1)
