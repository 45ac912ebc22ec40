"""One bundle that this process serves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eptx.bundle import Task, TensorSpec
from eptx.runtime.requests.tasks import TaskChooser
from eptx.runtime.serving.errors import VERSION
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.complete import CompletionService
from eptx.runtime.serving.models.embed import EmbedService
from eptx.runtime.serving.models.generate import GenerateService
from eptx.runtime.serving.models.infer import InferService
from eptx.runtime.serving.models.postprocess import own_outputs
from eptx.runtime.serving.models.preprocess import IMAGE, TASK, TEXT, TEXT_PAIR
from eptx.runtime.serving.models.prompts import PromptService
from eptx.runtime.serving.protocol.tensors import datatype
from eptx.runtime.session import Session


class LocalModel:
    """A `Model` of a session in this process.

    Args:
        name: how requests name it.
        session: of the bundle.
        limits: of the server.
        metrics: that count.
    """

    def __init__(self, name: str, session: Session, limits: Limits, metrics: Metrics) -> None:
        self._name, self._session = name, session
        prompts, infer = PromptService(name, session, limits, metrics), InferService(name, session, limits, metrics)
        generate, completion = GenerateService(name, session, prompts), CompletionService(name, session, prompts)
        self.generate, self.generate_stream, self.infer = generate.generate, generate.generate_stream, infer.infer
        self.complete, self.complete_stream = completion.complete, completion.complete_stream
        self.embed = EmbedService(session, infer, limits).embed
        self._services = infer, prompts
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def runs_on(self) -> dict[str, Any]:
        """What runs it, for the log: provider, nodes and kernels as `Session.info` has them."""
        info = self._session.info()
        return {key: info[key] for key in ("provider", "provider_reason", "nodes", "kernels")}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """A block during which the model is not closed."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def close(self) -> None:
        """Waits until no block uses the model, and ends its threads."""
        await self._unused.wait()
        for service in self._services:
            await asyncio.to_thread(service.close)

    async def metadata(self) -> dict[str, Any]:
        """See `Model.metadata`."""
        manifest = self._session.manifest
        text = [TEXT, TEXT_PAIR] if self._session.bundle.file("tokenizer.json") is not None else []
        return {
            "name": self._name,
            "versions": [VERSION],
            "platform": "eptx_onnxruntime",
            "inputs": [_tensor(spec) for spec in manifest.inputs],
            "outputs": [_tensor(spec) for spec in manifest.outputs],
            "parameters": {
                "tasks": list(self._session.tasks),
                "default_task": TaskChooser(manifest).default,
                "labels": {task.name: _labels(task) for task in manifest.tasks if task.labels},
                "problem_types": {task.name: task.problem_type for task in manifest.tasks if task.problem_type},
                "mode": manifest.mode,
                "method": manifest.method,
                "precision": manifest.precision,
                "provider": self._session.provider,
                "native_kernels": self._session.info()["kernels"]["running"],
                "generates": manifest.generation is not None,
                "chats": self._session.chats,
                "also_takes": [*text, *([IMAGE] if manifest.image is not None else []), TASK],
                "also_gives": list(own_outputs(manifest)),
                "fingerprints": dict(manifest.fingerprints),
            },
        }


def _labels(task: Task) -> list[str] | int | None:
    """The names of a task's labels, or how many there are."""
    return list(task.label_names) if task.label_names is not None else task.labels


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": datatype(spec.dtype),
        "shape": [size if isinstance(size, int) else -1 for size in spec.shape],
    }
