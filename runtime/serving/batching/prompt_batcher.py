"""The queue of a language model's prompts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from eptx.bundle import Manifest
from eptx.runtime.serving.batching.overhead import USUAL
from eptx.runtime.serving.batching.prompt_job import PromptJob
from eptx.runtime.serving.batching.queue import JobQueue
from eptx.runtime.serving.batching.scheduler import next_batch
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics

#: Batches at once. A batch that runs takes no more prompts, so a new prompt would wait for the longest answer.
_BATCHES = 2
#: Seconds that a prompt waits while a batch runs, until that ends or another batch is full, before a second batch
#: begins: two batches at once slow each other down, two rows of one batch do not.
_PATIENCE = 0.5
#: After a batch of several answers its clients may ask again together. Wait for them this share of the batch's time.
_AGAIN = 0.05
#: The overhead of one step of an answer, in tokens, for a model of 135 million weights on two cores.
_STEP = 3


#: Answers a batch, and never raises.
Generate = Callable[[Sequence[PromptJob]], None]


class PromptBatcher(JobQueue[PromptJob]):
    """Answers the prompts that wait: those of similar length share a batch, whatever their tasks.

    If no batch runs when a prompt comes, it waits a moment for more. While a batch runs, a second one begins when it is
    full, or when its oldest prompt has waited half a second.

    Args:
        name: the model's.
        manifest: the bundle's.
        limits: of the queue and of one batch.
        metrics: that count.
        generate: answers a batch.
    """

    rows_name = "prompts"

    def __init__(self, name: str, manifest: Manifest, limits: Limits, metrics: Metrics, generate: Generate) -> None:
        self._generate = generate
        self._batch_limits = replace(limits, max_batch=limits.generations, queue=max(limits.queue, limits.generations))
        self._context = manifest.max_length if manifest.encoder is None else None
        self._again = 0.0
        super().__init__(name, limits, metrics, _BATCHES)

    def drop(self, job: PromptJob) -> None:
        """Takes a prompt out of the queue, or has its batch go on without it."""
        job.cancelled = True
        super().drop(job)

    def _wait_for_more(self, idle: bool) -> None:
        """Waits for more prompts than the oldest, as long as the batch has room."""
        while 0 < len(self._waiting) < self._limits.generations and not self._closing:
            oldest = next(iter(self._waiting))
            busy = min(oldest.queued + _PATIENCE, math.inf if self._running else self._again)
            left = max(oldest.queued + self._limits.max_delay, busy) - time.monotonic()
            if left <= 0 or oldest.batch_key is None:
                return
            self._changed.wait(left)

    def _choose(self) -> list[PromptJob]:
        """The oldest prompt, and those of similar length.

        A batch's overhead are the steps of its answers: sharing them is worth that much padding.
        """
        first = next(iter(self._waiting))
        chosen, longest, room = [], 0, 0
        for job in next_batch(self._waiting, self._batch_limits, max(USUAL, _STEP * first.max_new_tokens)):
            both = max(longest, job.length), max(room, job.max_new_tokens)
            if self._context is None or sum(both) <= self._context:
                chosen.append(job)
                longest, room = both
        return chosen

    def _answer(self, batch: Sequence[PromptJob]) -> None:
        began = time.monotonic()
        self._generate(batch)
        ended = time.monotonic()
        self._again = ended + _AGAIN * (ended - began if len(batch) > 1 else 0.0)
