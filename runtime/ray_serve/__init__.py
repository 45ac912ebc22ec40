"""Bundles on a Ray cluster: replicas on any number of machines, which answer as `eptx serve` does.

Ray Serve starts replicas, moves requests between machines and scales; each replica has the
queues of `eptx serve`, and its batches of all tasks. Needs what ``pip install 'eptx[serve,ray]'`` brings.

>>> from ray import serve
>>> from eptx.runtime.ray_serve import build
>>> serve.run(build({"bundles": {"desk": "/models/desk"}}))
"""

from __future__ import annotations

from eptx.errors import NotSupportedError

_PACKAGES = ("fastapi", "prometheus_client", "pydantic", "ray", "starlette", "uvicorn")

try:
    from eptx.runtime.ray_serve.builder import build
    from eptx.runtime.ray_serve.front import FrontDeployment
    from eptx.runtime.ray_serve.replica import BundleDeployment
    from eptx.runtime.ray_serve.retry import proxy_middlewares
    from eptx.runtime.ray_serve.settings import Settings
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in _PACKAGES:
        raise
    raise NotSupportedError(f"Ray Serve needs {error.name}: pip install 'eptx[serve,ray]'") from None

__all__ = ["BundleDeployment", "FrontDeployment", "Settings", "build", "proxy_middlewares"]
