"""Answers inference requests: preprocess, queue and run, postprocess."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.files.strict_json import read_json_object
from eptx.runtime.outputs import Array, Outputs
from eptx.runtime.serving.batching.batcher import Batcher, Job
from eptx.runtime.serving.batching.collate import Collator
from eptx.runtime.serving.batching.overhead import USUAL, run_overhead
from eptx.runtime.serving.deadline import earlier, within
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.postprocess import choose_outputs, encode_answer, fit_limits
from eptx.runtime.serving.models.preprocess import Preprocessed, Preprocessor
from eptx.runtime.serving.protocol.infer import InferRequest, parse_request
from eptx.runtime.serving.protocol.parameters import read_timeout
from eptx.runtime.session import Session

#: Requests and answers of more bytes than this are read and encoded in a thread of their own.
_LARGE = 64 << 10


class InferService:
    """Answers one model's inference requests; those that wait share a batch, whatever their tasks.

    Args:
        name: the model's.
        session: that runs.
        limits: of the server.
        metrics: that count.
    """

    def __init__(self, name: str, session: Session, limits: Limits, metrics: Metrics) -> None:
        self._name, self._session, self._metrics = name, session, metrics
        limits = fit_limits(limits, session.manifest)
        self._preprocess = Preprocessor(session, limits)
        self._sees = session.manifest.image is not None
        self._collator = Collator(session.manifest, _pad_id(session.bundle))
        measured = self._collator.pads and session.manifest.generation is None  # a generator may never run here
        overhead = run_overhead(session, limits) if measured else USUAL
        self._batcher = Batcher(name, session, self._collator, limits, metrics, overhead)

    async def infer(self, body: bytes, header_length: str | None, deadline: float) -> tuple[bytes, int | None]:
        """See `Model.infer`."""
        came = time.monotonic()
        read = partial(self._read, body, header_length, deadline)
        small = len(body) <= _LARGE and not self._sees  # a small file may hold a large image
        request, inputs, names, deadline = read() if small else await asyncio.to_thread(read)
        outputs = await self._queued(inputs, deadline, came)
        encode = partial(encode_answer, self._name, request, outputs.of_texts(inputs.texts), names)
        size = sum(outputs[name].nbytes for name in names if name in outputs)
        return encode() if size <= _LARGE else await asyncio.to_thread(encode)

    async def run(self, arrays: dict[str, Array], deadline: float) -> Outputs:
        """The outputs for checked arrays that one run takes.

        Raises:
            RequestError, Refused: as `infer` does.
        """
        return await self._queued(self._preprocess.checked(arrays), deadline, time.monotonic())

    async def _queued(self, inputs: Preprocessed, deadline: float, came: float) -> Outputs:
        job = self._job(inputs, deadline)
        self._batcher.submit(job)
        try:
            async with within(deadline):
                outputs = await job.answer
        finally:
            self._batcher.drop(job)
        seconds, waited = time.monotonic() - came, job.started - job.queued
        self._metrics.answered(self._name, job.task, self._session.provider, job.rows, waited, seconds)
        return outputs

    def close(self) -> None:
        """Answers the requests that wait, and ends the thread."""
        self._batcher.close()

    def _read(
        self, body: bytes, header_length: str | None, deadline: float
    ) -> tuple[InferRequest, Preprocessed, tuple[str, ...], float]:
        request = parse_request(body, header_length)
        deadline = earlier(deadline, read_timeout(request.parameters))
        inputs = self._preprocess(request)
        return request, inputs, choose_outputs(request, self._session.manifest, inputs), deadline

    def _job(self, inputs: Preprocessed, deadline: float) -> Job:
        return Job(
            inputs.arrays,
            rows=inputs.rows,
            length=inputs.length,
            batch_key=self._collator.batch_key(inputs.arrays),
            task=inputs.task,
            deadline=deadline,
            answer=asyncio.get_running_loop().create_future(),
        )


def _pad_id(bundle: Bundle) -> int:
    """The token to pad a batch with."""
    if bundle.manifest.text is not None:
        return bundle.manifest.text.pad
    path = bundle.file("config.json")
    pad = read_json_object(path, error=BundleError).get("pad_token_id") if path is not None else None
    size = bundle.manifest.vocab_size
    return pad if type(pad) is int and pad >= 0 and (size is None or pad < size) else 0
