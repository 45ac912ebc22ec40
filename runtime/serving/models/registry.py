"""The models of a server by name, and the change from a bundle to the one that replaced it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from eptx.errors import BundleError, EptxError, UsageError
from eptx.manifest.names import MANIFEST_FILE
from eptx.runtime.serving.errors import Refused, no_model
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.memory import give_back
from eptx.runtime.serving.models.model import ServedModel

_log = logging.getLogger("eptx.serving")
_INTERVAL = 1.0
_ATTEMPTS = 3

#: What tells one bundle's ``eptx.json`` from another's: inode, time in ns, bytes. None: there is none.
_Print = tuple[int, int, int] | None


class Registry:
    """Serves bundles by name; to be used in one event loop.

    A bundle whose folder was replaced is loaded beside the old one, which answers until the new one is ready and goes
    when its last request is answered. One that does not load leaves the old one in its place.

    Args:
        sources: the bundles' folders by name.
        limits: of the server.
        metrics: that count.
        provider: as `eptx.runtime.Session` takes it.
        threads: as `eptx.runtime.Session` takes it.

    Attributes:
        draining: whether the server is about to end and takes no more.
    """

    def __init__(
        self,
        sources: Mapping[str, Path],
        limits: Limits,
        metrics: Metrics,
        *,
        provider: str = "auto",
        threads: int | None = None,
    ) -> None:
        if not sources:
            raise UsageError("there is no bundle to serve")
        self._sources = dict(sources)
        self._limits, self._metrics = limits, metrics
        self._provider, self._threads = provider, threads
        self._models: dict[str, ServedModel] = {}
        self._prints: dict[str, _Print] = {}
        self._locks = {name: asyncio.Lock() for name in sources}
        self._leaving: set[asyncio.Task[None]] = set()
        self.draining = False

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names."""
        return tuple(self._sources)

    @property
    def ready(self) -> bool:
        """Whether all models answer."""
        return not self.draining and len(self._models) == len(self._sources)

    async def start(self) -> None:
        """Loads all bundles, one after the other.

        Raises:
            EptxError: one of them does not load.
        """
        for name in self._sources:
            await self.load(name)

    @contextmanager
    def use(self, name: str, version: str | None = None) -> Iterator[ServedModel]:
        """A model, which outlives the block though it be replaced.

        Raises:
            Refused: 404, there is none of that name and version; 503, the server is about to end.
        """
        if self.draining:
            raise Refused(503, "the server is shutting down", {"Retry-After": "1", "Connection": "close"})
        model = self._models.get(name)
        if model is None or version not in (None, "1"):
            raise no_model(name, version, self._sources)
        with model.in_use():
            yield model

    async def load(self, name: str) -> None:
        """Loads a bundle as it is on the disk now, and puts it in the place of the one that was served.

        Raises:
            EptxError: it does not load; the one that was served is still.
        """
        async with self._locks[name]:
            model = await self._loaded(name)
            old, self._models[name] = self._models.get(name), model
        if old is not None:
            self._leave(old)

    async def check(self, name: str) -> None:
        """Loads a bundle if it was replaced since it was last looked at; never raises."""
        now = _print(self._sources[name])
        if now is None or now == self._prints.get(name) or self._locks[name].locked():
            return
        await self.reload(name)

    async def reload(self, name: str) -> str | None:
        """Loads a bundle again and logs how that went; returns why it failed."""
        try:
            await self.load(name)
        except Exception as error:
            message = str(error) if isinstance(error, EptxError) else f"{type(error).__name__}: {error}"
            _log.error("reload failed", extra={"fields": {"model": name, "error": message}})
            self._metrics.reloaded(name, "failed")
            return message
        _log.info("reload", extra={"fields": {"model": name}})
        self._metrics.reloaded(name, "done")
        return None

    async def watch(self) -> None:
        """Looks for replaced bundles once a second, until it is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            for name in self._sources:
                await self.check(name)

    async def close(self) -> None:
        """Answers what is accepted, and lets all models go."""
        self.draining = True
        for name in tuple(self._models):
            self._leave(self._models.pop(name))
        await asyncio.gather(*self._leaving)

    async def _loaded(self, name: str) -> ServedModel:
        path = self._sources[name]
        for _ in range(_ATTEMPTS):
            self._prints[name] = before = _print(path)
            try:
                model = await asyncio.to_thread(self._open, name, path)
            except EptxError:
                if before == _print(path):
                    raise
                continue  # it was replaced while it was read
            if before == _print(path):
                return model
            self._leave(model)
        raise BundleError(f"{path.name}: the bundle is replaced faster than it loads")

    def _open(self, name: str, path: Path) -> ServedModel:
        return ServedModel(name, path, self._limits, self._metrics, provider=self._provider, threads=self._threads)

    def _leave(self, model: ServedModel) -> None:
        task = asyncio.create_task(_close(model))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _close(model: ServedModel) -> None:
    await model.close()
    del model
    await asyncio.to_thread(give_back)


def _print(path: Path) -> _Print:
    try:
        found = (path / MANIFEST_FILE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
