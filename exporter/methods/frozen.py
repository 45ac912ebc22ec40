"""Routes that the data decides, frozen: which tasks need one, and what a manifest says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eptx.errors import UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.routing.route import Frozen, FrozenRoutes, Route
from eptx.exporter.adapters.routing.routers import Router
from eptx.exporter.methods.method import RouteFields
from eptx.exporter.options import ExportOptions


def routes_by_task(adapter: Adapter, options: ExportOptions, router: Router, needs: str) -> list[Frozen]:
    """The frozen routes of every task, by id (of the folded task alone, in a static export, the others share them).

    Args:
        adapter: the adapter.
        options: of the export.
        router: what the routes choose among.
        needs: what to say of a task without a route, and what to give.

    Raises:
        UsageError: a task has no route, or a route does not fit the adapter.
    """
    unknown = [task for task in options.routes if task is not None and task not in adapter.tasks]
    if unknown:
        raise UsageError(f"--route names an unknown task {unknown[0]!r}; the adapter has {', '.join(adapter.tasks)}")
    needed = adapter.tasks if options.mode == "conditioned" else (options.folded_task(adapter.tasks),)
    common = options.routes.get(None)
    for task in needed:
        if options.routes.get(task, common) is None:
            raise UsageError(needs.format(task=repr(task)))
    fallback = common or next(iter(options.routes.values()), ())
    found = [options.routes.get(task, fallback) for task in adapter.tasks]
    routes = [(given,) if isinstance(given, Route) else tuple(given) for given in found]
    for route in (route for frozen in routes for route in frozen):
        router.check(route)
    return routes


def frozen_fields(tasks: Sequence[str], routes: FrozenRoutes, options: ExportOptions) -> RouteFields:
    """What a manifest says of the frozen routes of these tasks, by id."""
    by_task = dict(zip(tasks, routes.given, strict=True))
    if options.mode == "static":
        task = options.folded_task(tasks)
        by_task = {task: by_task[task]}
    return RouteFields(
        route={
            "tasks": {task: [_plain(route) for route in given] for task, given in by_task.items()},
            "constant": [{"call": call, **_plain(route)} for call, route in routes.constant.items()],
            **({"modules": list(routes.modules)} if routes.modules else {}),
            **(options.route_report or {}),
        }
    )


def _plain(route: Route) -> dict[str, Any]:
    return {"group": route.group, "weights": list(route.weights)}
