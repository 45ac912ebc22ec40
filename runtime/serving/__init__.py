"""A bundle as a service: the Open Inference Protocol v2, with requests of all tasks in one batch.

Language models also answer OpenAI's clients, to whom every task is a model.

Needs what ``pip install 'eptx[serve]'`` brings; the rest of `eptx.runtime` does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from eptx.errors import NotSupportedError
from eptx.runtime.serving.limits import Limits
from eptx.runtime.session import Session

__all__ = ["Limits", "serve"]

_PACKAGES = ("httptools", "prometheus_client", "starlette", "uvicorn", "uvloop")


def serve(
    bundles: Mapping[str, Path],
    limits: Limits | None = None,
    *,
    provider: str = "auto",
    threads: int | None = None,
    log_level: str = "info",
    **address: Any,
) -> None:
    """Serves bundles over HTTP until SIGTERM or SIGINT; then it answers the requests that it accepted, and ends.

    Args:
        bundles: the bundles' folders by the names that requests use.
        limits: of requests, queues and runs.
        provider: as `eptx.runtime.Session` takes it.
        threads: as `eptx.runtime.Session` takes it.
        log_level: of the log on standard error: ``debug``, ``info``, ``warning`` or ``error``.
        address: ``host``, ``port``, ``token_file``, ``tls_cert`` and ``tls_key``; see
            `eptx.runtime.serving.http.server.Address`.

    Raises:
        NotSupportedError: a package that serving needs is not installed.
        UsageError: the address, a file or a limit cannot be used.
        BundleError: a bundle does not load.
    """
    try:
        from eptx.runtime.serving.http.server import Address, run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise NotSupportedError(f"serving needs {error.name}: pip install 'eptx[serve]'") from None
    run(
        bundles, Address(**address), limits or Limits(), partial(Session, provider=provider, threads=threads), log_level
    )
