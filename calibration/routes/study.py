"""Freezing routes: what the routers do on data, and which frozen route changes the answers least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eptx.calibration.routes.reference_runner import ReferenceRunner
from eptx.calibration.routes.task_routes import TaskRoutes, study_task
from eptx.errors import UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.routing.route import Frozen, Route
from eptx.exporter.adapters.routing.routers import Router
from eptx.exporter.methods.method import method_of, titles
from eptx.exporter.options import ExportOptions
from eptx.progress import step
from eptx.runtime.measure import Row


@dataclass(frozen=True)
class RouteStudy:
    """What data says about an adapter's routes.

    Attributes:
        router: the module that routes; None where every module does.
        groups: k. experts: t, of a group.
        tasks: task -> what its rows say.
    """

    router: str | None
    groups: int
    experts: int
    tasks: Mapping[str, TaskRoutes]

    def to_json(self) -> dict[str, Any]:
        """As ``calibration.json`` has it under ``routes``."""
        return {
            "router": self.router,
            "groups": self.groups,
            "experts": self.experts,
            "tasks": {task: routes.to_json() for task, routes in self.tasks.items()},
        }

    def options(self, options: ExportOptions) -> ExportOptions:
        """An export's options with the routes that they lack, and a report on all of them for the manifest."""
        found: dict[str | None, Frozen] = {t: routes.chosen for t, routes in self.tasks.items() if not routes.given}
        errors = {task: dict(routes.error) for task, routes in self.tasks.items()}
        return replace(options, routes={**options.routes, **found}, route_report={"frozen_error": errors})


def check_freezes(base: Path | None, adapter: Adapter, options: ExportOptions) -> None:
    """Refuses an export without a route that data can freeze.

    Raises:
        UsageError: there is none, or there is no base folder to run.
    """
    _routed(base, adapter)
    if options.mode == "dynamic":
        raise _no_route()


def study_routes(
    base: Path | None,
    adapter: Adapter,
    options: ExportOptions,
    rows: Mapping[str, Sequence[Row]],
    metrics: Mapping[str, str] | None = None,
) -> RouteStudy:
    """Runs rows by the live route and by a frozen one of every group, each row alone, unpadded, in PyTorch.

    Args:
        base: the transformers folder.
        adapter: the adapter.
        options: of an export; its own routes are measured beside those that are found.
        rows: task -> its rows.
        metrics: task -> metric, where it is not the usual one of its answers.

    Raises:
        UsageError: the adapter has no routes, or other ones than those given, or there is no base folder to run.
        DataError: the base does not read a row, or a label is not one of the task's.
        NotSupportedError: the base does not read text, or has no tokenizer for it.
    """
    folder, router = _routed(base, adapter)
    with step("measuring the routes"):
        runner = ReferenceRunner(folder, adapter, options.model_class)
        studies = {}
        for task, own in rows.items():
            told = options.routes.get(task, options.routes.get(None))
            given = (told,) if isinstance(told, Route) else told
            for route in given or ():
                router.check(route)
            metric = {task: metrics[task]} if metrics and task in metrics else {}
            studies[task] = study_task(runner, [runner.encode(row) for row in own], router, given, metric)
    return RouteStudy(router.module, router.groups, router.experts, studies)


def _routed(base: Path | None, adapter: Adapter) -> tuple[Path, Router]:
    router = method_of(adapter.method).router(adapter)
    if router is None:
        raise _no_route()
    if base is None:
        raise UsageError("--calibration-data runs the model in PyTorch: give its transformers folder as BASE")
    return base, router


def _no_route() -> UsageError:
    methods = titles("--route")
    return UsageError(f"--calibration-data measures the routes of {methods} adapters, for --mode static or conditioned")
