"""The application that a Serve configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.serve import Application

from eptx.runtime.ray_serve.front import FrontDeployment
from eptx.runtime.ray_serve.replica import BundleDeployment
from eptx.runtime.ray_serve.settings import Settings

#: Batches that a replica may have accepted: one runs, and the others wait.
_AHEAD = 4


def build(args: Mapping[str, Any]) -> Application:
    """The application ``eptx.runtime.ray_serve:build``: deployments ``Front`` and ``Bundles``.

    A configuration of the two deployments (replicas, autoscaling, resources) overrides what is set here.

    Args:
        args: what `Settings` has.

    Raises:
        pydantic.ValidationError: an argument does not exist, or is of another type.
        UsageError: a limit is out of range.
    """
    settings = Settings.model_validate(args)
    limits = settings.limits
    bundles = BundleDeployment.options(
        max_ongoing_requests=_AHEAD * limits.max_batch,
        max_queued_requests=limits.queue,
        graceful_shutdown_timeout_s=limits.drain_timeout,
    )
    front = FrontDeployment.options(
        max_ongoing_requests=limits.queue + _AHEAD * limits.max_batch,
        ray_actor_options={"num_cpus": 0},  # it only waits: a CPU of its own would be lost to the replicas
        graceful_shutdown_timeout_s=limits.drain_timeout,
    )
    return front.bind(settings, bundles.bind(settings))
