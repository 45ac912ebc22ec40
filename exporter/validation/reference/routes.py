"""The frozen routes that a bundle says it has."""

from __future__ import annotations

from eptx.bundle import Manifest
from eptx.errors import BundleError
from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.trained import AdapterFiles
from eptx.exporter.trained.reference import reference_of


def frozen_routes(manifest: Manifest) -> dict[str, list[Route | None]]:
    """Task -> the frozen route of each call of the router; None for a call whose route is constant anyway."""
    route = manifest.route or {"tasks": {}, "constant": []}
    constant = {call["call"] for call in route["constant"]}
    found: dict[str, list[Route | None]] = {}
    for task, frozen in route["tasks"].items():
        own = (Route(int(each["group"]), tuple(map(float, each["weights"]))) for each in frozen)
        found[task] = [None if call in constant else next(own) for call in range(len(frozen) + len(constant))]
    return found


def check_routes(manifest: Manifest, files: AdapterFiles) -> None:
    """Compares a bundle's routes with the adapter's routers, where these are several.

    Args:
        manifest: of the bundle.
        files: the adapter's folder.

    Raises:
        BundleError: the routes are of other modules, or weigh more or fewer experts.
    """
    routers = reference_of(files).routers(files)
    if manifest.route is None or not routers:
        return
    if manifest.route.get("modules") != list(routers):
        raise BundleError(f"eptx.json: route.modules are not those that route in the adapter: {', '.join(routers)}")
    for task, frozen in manifest.route["tasks"].items():
        for (module, experts), own in zip(routers.items(), frozen, strict=True):
            if len(own["weights"]) != experts:
                raise BundleError(
                    f"eptx.json: the route of task {task} at {module} has {len(own['weights'])} weights; "
                    f"the adapter has {experts} experts there"
                )
