"""One bundle that is served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle, Task, TensorSpec
from eptx.errors import BundleError
from eptx.files.strict_json import read_json_object
from eptx.runtime.outputs import Outputs
from eptx.runtime.serving.batching.batcher import Batcher, Job
from eptx.runtime.serving.batching.collate import Merger
from eptx.runtime.serving.batching.overhead import USUAL, run_overhead
from eptx.runtime.serving.errors import Overdue
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.generate import Writing
from eptx.runtime.serving.models.postprocess import TASK, choose_outputs, encode_answer, fitted, own_outputs
from eptx.runtime.serving.models.preprocess import TEXT, TEXT_PAIR, Prepared, Preparer
from eptx.runtime.serving.protocol.infer import InferRequest, datatype, parse_request
from eptx.runtime.serving.protocol.parameters import read_timeout, until
from eptx.runtime.session import Session

VERSION = "1"
#: Requests and answers of more bytes than this are read and written in a thread of their own.
_LARGE = 64 << 10


class ServedModel:
    """A bundle with its session, its queue and what turns requests into jobs.

    Args:
        name: how requests name it.
        path: the bundle's folder.
        limits: of the server.
        metrics: that count.
        provider: as `Session` takes it.
        threads: as `Session` takes it.

    Raises:
        BundleError, NotSupportedError, LimitError: as `Session` does.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        limits: Limits,
        metrics: Metrics,
        *,
        provider: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.name = name
        self.session = Session(path, provider, threads=threads)
        limits = fitted(limits, self.session.manifest)
        self._metrics = metrics
        self._prepare = Preparer(self.session, limits)
        self._merger = Merger(self.session.manifest, _pad_id(self.session.bundle))
        self.writing = Writing(name, self.session, limits, metrics)
        measured = self._merger.pads and self.session.manifest.generation is None  # a generator may never run here
        overhead = run_overhead(self.session, limits) if measured else USUAL
        self._batcher = Batcher(name, self.session, self._merger, limits, metrics, overhead)
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """A block that the model outlives."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def close(self) -> None:
        """Waits until nobody uses the model any more, and lets it go."""
        await self._unused.wait()
        await asyncio.to_thread(self._batcher.close)
        await asyncio.to_thread(self.writing.close)

    async def metadata(self) -> dict[str, Any]:
        """What the protocol tells of a model, and in ``parameters`` what is eptx's own."""
        manifest = self.session.manifest
        text = [TEXT, TEXT_PAIR] if self.session.bundle.file("tokenizer.json") is not None else []
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": "eptx_onnxruntime",
            "inputs": [_tensor(spec) for spec in manifest.inputs],
            "outputs": [_tensor(spec) for spec in manifest.outputs],
            "parameters": {
                "tasks": list(self.session.tasks),
                "labels": {task.name: _labels(task) for task in manifest.tasks if task.labels},
                "problem_types": {task.name: task.problem_type for task in manifest.tasks if task.problem_type},
                "mode": manifest.mode,
                "method": manifest.method,
                "precision": manifest.precision,
                "provider": self.session.provider,
                "generates": manifest.generation is not None,
                "also_takes": [*text, TASK],
                "also_gives": list(own_outputs(manifest)),
                "fingerprints": dict(manifest.fingerprints),
            },
        }

    async def infer(self, body: bytes, header_length: str | None, deadline: float) -> tuple[bytes, int | None]:
        """Answers one inference request.

        Args:
            body: as it was sent.
            header_length: the header that says how much of the body is JSON, if it was sent.
            deadline: in `time.monotonic`'s seconds.

        Returns:
            The answer's body, and the length of its JSON where binary data follow.

        Raises:
            RequestError: the request does not fit the bundle.
            Refused: 429, the queue is full; 504, the deadline passed.
        """
        came = time.monotonic()
        request, prepared, names, ends = await self._read(body, header_length, deadline)
        job = self._job(prepared, ends)
        self._batcher.submit(job)
        try:
            async with asyncio.timeout(max(0.0, ends - time.monotonic())):
                outputs = await job.answer
        except TimeoutError:
            raise Overdue() from None
        finally:
            self._batcher.drop(job)
        seconds = time.monotonic() - came
        waited = job.started - job.queued
        self._metrics.answered(self.name, job.task, self.session.provider, job.rows, waited, seconds)
        return await self._encoded(request, outputs, names)

    async def _read(
        self, body: bytes, header_length: str | None, deadline: float
    ) -> tuple[InferRequest, Prepared, tuple[str, ...], float]:
        def read() -> tuple[InferRequest, Prepared, tuple[str, ...], float]:
            request = parse_request(body, header_length)
            ends = until(deadline, read_timeout(request.parameters))
            prepared = self._prepare(request)
            return request, prepared, choose_outputs(request, self.session.manifest, prepared), ends

        return read() if len(body) <= _LARGE else await asyncio.to_thread(read)

    def _job(self, prepared: Prepared, deadline: float) -> Job:
        return Job(
            prepared.arrays,
            rows=prepared.rows,
            length=prepared.length,
            kind=self._merger.kind(prepared.arrays),
            task=prepared.task,
            deadline=deadline,
            answer=asyncio.get_running_loop().create_future(),
        )

    async def _encoded(
        self, request: InferRequest, outputs: Outputs, names: tuple[str, ...]
    ) -> tuple[bytes, int | None]:
        size = sum(outputs[name].nbytes for name in names if name in outputs)
        if size <= _LARGE:
            return encode_answer(self.name, request, outputs, names)
        return await asyncio.to_thread(encode_answer, self.name, request, outputs, names)


def _labels(task: Task) -> list[str] | int | None:
    """The names of a task's labels, or how many there are."""
    return list(task.label_names) if task.label_names is not None else task.labels


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": datatype(spec.dtype),
        "shape": [size if isinstance(size, int) else -1 for size in spec.shape],
    }


def _pad_id(bundle: Bundle) -> int:
    """The token to pad a batch with."""
    if bundle.manifest.text is not None:
        return bundle.manifest.text.pad
    path = bundle.file("config.json")
    pad = read_json_object(path, error=BundleError).get("pad_token_id") if path is not None else None
    size = bundle.manifest.vocab_size
    return pad if type(pad) is int and pad >= 0 and (size is None or pad < size) else 0
