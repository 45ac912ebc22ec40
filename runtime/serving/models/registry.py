"""The models of a server by name, and how a bundle that was replaced on the disk takes over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from eptx.errors import BundleError, EptxError, UsageError
from eptx.manifest.names import MANIFEST_FILE
from eptx.runtime.ort.memory import release_memory
from eptx.runtime.serving.errors import Refused, find_model
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.model import LocalModel
from eptx.runtime.session import Session

_log = logging.getLogger("eptx.serving")
_INTERVAL = 1.0
_ATTEMPTS = 3

#: Inode, time in ns and bytes of an ``eptx.json``: they change when a bundle is replaced. None: there is no file.
_Stamp = tuple[int, int, int] | None


class LocalRegistry:
    """A `Registry` of bundles that this process holds; to be used in one event loop.

    If a bundle's folder is replaced, the new bundle is loaded beside the old one. The old one answers until the new one
    is ready, and is closed after its last request. If the new one does not load, the old one stays.

    Args:
        sources: the bundles' folders by name.
        limits: of the server.
        metrics: that count.
        open_session: opens a bundle's folder.

    Attributes:
        draining: whether the server is shutting down and takes no more requests.
    """

    def __init__(
        self, sources: Mapping[str, Path], limits: Limits, metrics: Metrics, open_session: Callable[[Path], Session]
    ) -> None:
        if not sources:
            raise UsageError("there is no bundle to serve")
        self._sources = dict(sources)
        self._limits, self._metrics, self._open_session = limits, metrics, open_session
        self._models: dict[str, LocalModel] = {}
        self._stamps: dict[str, _Stamp] = {}
        self._locks = {name: asyncio.Lock() for name in sources}
        self._retiring: set[asyncio.Task[None]] = set()
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
    def use(self, name: str, version: str | None = None) -> Iterator[LocalModel]:
        """See `Registry.use`."""
        if self.draining:
            raise Refused(503, "the server is shutting down", {"Retry-After": "1", "Connection": "close"})
        model = find_model(self._models, name, version)
        with model.in_use():
            yield model

    async def load(self, name: str) -> None:
        """Loads a bundle from the disk, and serves it in the place of the old one.

        Raises:
            EptxError: it does not load; the old one is still served.
        """
        async with self._locks[name]:
            model = await self._open_stable(name)
            old, self._models[name] = self._models.get(name), model
        _log.info("loaded", extra={"fields": {"model": name, **model.runs_on}})
        if old is not None:
            self._retire(old)

    async def check(self, name: str) -> None:
        """Loads a bundle if it was replaced since the last check; never raises."""
        now = _stamp(self._sources[name])
        if now is None or now == self._stamps.get(name) or self._locks[name].locked():
            return
        await self.reload(name)

    async def reload(self, name: str) -> str | None:
        """Loads a bundle again and logs the result; see `Registry.reload`."""
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
        """Checks for replaced bundles once a second, until it is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            for name in self._sources:
                await self.check(name)

    async def close(self) -> None:
        """Answers the requests that were accepted, and closes all models."""
        self.draining = True
        for name in tuple(self._models):
            self._retire(self._models.pop(name))
        await asyncio.gather(*self._retiring)

    async def _open_stable(self, name: str) -> LocalModel:
        path = self._sources[name]
        for _ in range(_ATTEMPTS):
            self._stamps[name] = before = _stamp(path)
            try:
                model = await asyncio.to_thread(self._open, name, path)
            except EptxError:
                if before == _stamp(path):
                    raise
                continue  # it was replaced while it was read
            if before == _stamp(path):
                return model
            self._retire(model)
        raise BundleError(f"{path.name}: the bundle is replaced faster than it loads")

    def _open(self, name: str, path: Path) -> LocalModel:
        return LocalModel(name, self._open_session(path), self._limits, self._metrics)

    def _retire(self, model: LocalModel) -> None:
        task = asyncio.create_task(_close(model))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


async def _close(model: LocalModel) -> None:
    await model.close()
    del model
    await asyncio.to_thread(release_memory)


def _stamp(path: Path) -> _Stamp:
    try:
        found = (path / MANIFEST_FILE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
