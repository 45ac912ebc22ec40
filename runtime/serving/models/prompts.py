"""One model's prompts: checked, queued, and answered piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from eptx.errors import EptxError, RequestError
from eptx.manifest.names import TASK_ID
from eptx.runtime.generation.outputs import Piece
from eptx.runtime.generation.prompts import Prompts
from eptx.runtime.generation.request import GenerationRequest
from eptx.runtime.serving.batching.prompt_batcher import PromptBatcher
from eptx.runtime.serving.batching.prompt_job import BatchGenerator, PromptJob
from eptx.runtime.serving.deadline import within
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.session import Session


class PromptService:
    """Answers one model's prompts; those that wait share a batch, whatever their tasks and the protocol they came by.

    Args:
        name: the model's.
        session: that generates. If its bundle does not generate, every request is refused.
        limits: of the server.
        metrics: that count.
    """

    def __init__(self, name: str, session: Session, limits: Limits, metrics: Metrics) -> None:
        self._session, self._limits, manifest = session, limits, session.manifest
        self._batcher: PromptBatcher | None = None
        if manifest.generation is not None:
            _warm_up(session)
            self._batcher = PromptBatcher(name, manifest, limits, metrics, BatchGenerator(name, session, metrics))

    async def check(
        self, check: Callable[[], GenerationRequest], characters: int, *, threaded: bool
    ) -> GenerationRequest:
        """A checked request of one row. It is checked before it shares a batch, so that only its client sees an error.

        Args:
            check: checks it.
            characters: of its texts.
            threaded: whether checking takes long, so that it has a thread of its own.

        Raises:
            RequestError: the bundle does not generate, or the request does not fit it.
        """
        if self._batcher is None:
            raise RequestError("this bundle does not generate text; send it to infer")
        self._limits.check_text(characters)
        return await asyncio.to_thread(check) if threaded else check()

    async def pieces(self, request: GenerationRequest, deadline: float) -> AsyncGenerator[Piece, None]:
        """The answer to a checked request, as it comes; the last piece has a reason.

        Raises:
            Refused: 429, the queue is full; 504, the deadline passed.
        """
        assert self._batcher is not None
        came = asyncio.Queue[Piece | Exception]()
        job = self._job(request, came)
        self._batcher.submit(job)
        try:
            ended = False
            while not ended:
                async with within(deadline):
                    item = await came.get()
                if isinstance(item, Exception):
                    raise item
                ended = item.finish_reason is not None
                yield item
        finally:
            self._batcher.drop(job)  # the client has gone, or the answer is complete

    def close(self) -> None:
        """Answers the prompts that wait, and ends the threads."""
        if self._batcher is not None:
            self._batcher.close()

    def _job(self, request: GenerationRequest, came: asyncio.Queue[Piece | Exception]) -> PromptJob:
        loop = asyncio.get_running_loop()

        def send(item: Piece | Exception) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(came.put_nowait, item)

        alone = (
            self._session.manifest.rows_share_route or request.settings.seed is not None
        )  # one seed serves all rows of a batch
        return PromptJob(request, None if alone else replace(request.settings, max_new_tokens=1), send)


def _warm_up(session: Session) -> None:
    """Opens the model and its chat template now: their files may be replaced later."""
    generation = session.manifest.generation
    assert generation is not None
    encoder = session.manifest.encoder
    read = [spec for spec in encoder.inputs if spec.name != TASK_ID] if encoder is not None else []
    prompt: Prompts = [[next(i for i in range(3) if i not in (generation.pad, *generation.eos[:1]))]]
    if read and all(spec.name != "input_ids" for spec in read):
        prompt = {spec.name: np.zeros((1, *map(int, spec.shape[1:])), spec.dtype) for spec in read}
    session.generate(prompt, session.tasks[0], max_new_tokens=1)
    with suppress(EptxError):  # a bundle without a template answers prompts all the same
        session.check_chat([{"role": "user", "content": "a"}], session.tasks[0])
