"""A server process: its socket, its signals, and its shutdown."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import prometheus_client
import uvicorn
import uvloop

from eptx.errors import UsageError
from eptx.runtime.serving.http.app import create_app
from eptx.runtime.serving.http.auth import read_tokens
from eptx.runtime.serving.http.connection import Connection
from eptx.runtime.serving.http.logs import start_logging
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.registry import LocalRegistry
from eptx.runtime.session import Session

_log = logging.getLogger("eptx.serving")
_KEEP_ALIVE = 75
#: Files that the process opens beside its connections: models, logs, and connections that it refuses.
_OWN_FILES = 256
#: How long a thread may hold the interpreter lock, in seconds; the default, 5 ms, is as long as a run.
_SWITCH = 0.0005


@dataclass(frozen=True)
class Address:
    """Where a server listens, and whom it admits.

    Attributes:
        host: a name or address; by default clients of this machine only.
        port: 0 takes one that is free.
        token_file: tokens, one per line, of which a request must bring one.
        tls_cert, tls_key: a certificate chain and its key, in PEM.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


def run(
    bundles: Mapping[str, Path],
    address: Address,
    limits: Limits,
    open_session: Callable[[Path], Session],
    log_level: str,
) -> None:
    """Serves bundles until SIGTERM or SIGINT; see `eptx.runtime.serving.serve`."""
    start_logging(log_level)
    limits = replace(limits, max_connections=_room_for_connections(limits.max_connections))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one text is not worth waking threads for
    tokens = read_tokens(address.token_file) if address.token_file is not None else ()
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each metric, of no use
    metrics = Metrics()
    registry = LocalRegistry(bundles, limits, metrics, open_session)
    scheme = "http" if address.tls_cert is None else "https"
    with _bound(address) as listener:
        config = _config(address, limits, create_app(registry, metrics, limits, tokens))
        if not tokens and not _is_loopback(listener):
            _log.warning("anyone who reaches this address may send requests", extra={"fields": {"host": address.host}})
        sys.setswitchinterval(_SWITCH)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # it needs less of the interpreter lock
            runner.run(_serve(config, registry, listener, scheme))


async def _serve(config: uvicorn.Config, registry: LocalRegistry, listener: socket.socket, scheme: str) -> None:
    server = _Server(config, registry)
    await registry.start()
    server.listen_to_signals()
    listener.listen(config.backlog)  # from here on, clients that connect are answered
    host, port = listener.getsockname()[:2]
    where = {"url": _url(scheme, host, port), "host": host, "port": port}
    said = f"listening on {where['url']} for {', '.join(registry.names)}; Ctrl-C ends"
    _log.info("start", extra={"fields": {**where, "models": list(registry.names)}, "said": said})
    watcher = asyncio.create_task(registry.watch())
    try:
        await server.serve([listener])
    finally:
        watcher.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0 if server.force_exit else None):
                await registry.close()
        _log.info("stop")


class _Server(uvicorn.Server):
    """uvicorn's server, but a signal ends it with exit code 0."""

    def __init__(self, config: uvicorn.Config, registry: LocalRegistry) -> None:
        super().__init__(config)
        self._registry = registry
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to `listen_to_signals`: uvicorn would let the signal end the process."""
        yield

    def listen_to_signals(self) -> None:
        """SIGTERM and SIGINT shut the server down, a second one at once; SIGHUP loads all bundles again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _end(self) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        _log.info("draining", extra={"fields": {"requests": len(self.server_state.tasks)}})
        self._registry.draining = True
        self.should_exit = True

    def _reload(self) -> None:
        for name in self._registry.names:
            task = asyncio.create_task(self._registry.reload(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def _config(address: Address, limits: Limits, app: Any) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=Connection.within(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(limits.drain_timeout)),
        ssl_certfile=address.tls_cert,
        ssl_keyfile=address.tls_key,
    )
    if address.tls_key is not None and address.tls_cert is None:
        raise UsageError("--tls-key needs --tls-cert")
    try:
        config.load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise UsageError(f"the TLS certificate or key cannot be used: {error}") from None
    return config


@contextmanager
def _bound(address: Address) -> Iterator[socket.socket]:
    """A bound socket that does not listen yet: the models load first."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"host {address.host!r}: {error}") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
        except OSError as error:
            raise UsageError(f"cannot listen on {address.host} port {address.port}: {error.strerror}") from None
        yield listener


def _room_for_connections(wanted: int) -> int:
    """The connections that are wanted, or as many as the system allows beside the process's own files."""
    files = wanted + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= files:
        return wanted
    most = files if hard == resource.RLIM_INFINITY else min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(1, most - _OWN_FILES)


def _url(scheme: str, host: str, port: int) -> str:
    """Where a browser of this machine finds the page; an address that stands for all is no place to go to."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"{scheme}://{host if address.version == 4 else f'[{host}]'}:{port}/"


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
