"""Freezing TuckA's route: what the router does on data, and which frozen route loses least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eptx.progress import step
from eptx.calibration.routes.reference_runner import Reference
from eptx.calibration.routes.task_routes import TaskRoutes, study_task
from eptx.errors import UsageError
from eptx.exporter.adapters.route import Frozen, Route
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.options import ExportOptions
from eptx.exporter.plan import static_task
from eptx.runtime.measure import Row


@dataclass(frozen=True)
class RouteStudy:
    """What data says about an adapter's routes.

    Attributes:
        router: the module that routes.
        groups: k. experts: t, of a group.
        tasks: task -> what its rows say.
    """

    router: str
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
        """An export's options with the routes that they lack, and what is known of all."""
        found: dict[str | None, Frozen] = {t: routes.chosen for t, routes in self.tasks.items() if not routes.given}
        errors = {task: dict(routes.error) for task, routes in self.tasks.items()}
        return replace(options, routes={**options.routes, **found}, route_report={"frozen_error": errors})


def measure_route(
    base: Path | None, adapters: Sequence[Path], options: ExportOptions, rows: Mapping[str, Sequence[Row]]
) -> ExportOptions:
    """Fills in the frozen routes of an export from data, and reports how far they are from the live ones.

    Args:
        base: as in `study_routes`.
        adapters: as there.
        options: of the export; routes that it has are kept, and judged.
        rows: of at least the tasks of `routed_tasks`.

    Returns:
        The options with ``routes`` and ``route_report``.

    Raises:
        UsageError, DataError, NotSupportedError: as `routed_tasks` and `study_routes`.
    """
    tasks = routed_tasks(base, adapters, options)
    return study_routes(base, adapters, options, {task: rows[task] for task in tasks}).options(options)


def routed_tasks(base: Path | None, adapters: Sequence[Path], options: ExportOptions) -> tuple[str, ...]:
    """The tasks whose routes an export freezes: rows of each are needed.

    Raises:
        UsageError: the export has no route to freeze, or there is no base folder to run.
    """
    options.check()
    adapter = _read(base, adapters, options)
    if options.mode == "dynamic":
        raise UsageError("--calibration-data measures TuckA's route, for --mode static or conditioned")
    return adapter.tasks if options.mode == "conditioned" else (static_task(adapter, options),)


def study_routes(
    base: Path | None,
    adapters: Sequence[Path],
    options: ExportOptions,
    rows: Mapping[str, Sequence[Row]],
    metrics: Mapping[str, str] | None = None,
) -> RouteStudy:
    """Runs rows by the live route and by a frozen one of every group, each row by itself, unpadded, in PyTorch.

    Args:
        base: the transformers folder.
        adapters: the adapter folder.
        options: of an export; routes that it has are judged beside those that are found.
        rows: task -> its rows.
        metrics: task -> metric, where it is not the usual one of its answers.

    Raises:
        UsageError: the adapter has no routes, or there is no base folder to run.
        DataError: a row is not one that the base reads, or a label not one that the task has.
        NotSupportedError: the base does not read text, or has no tokenizer for it.
    """
    adapter = _read(base, adapters, options)
    assert base is not None
    with step("measuring the routes"):
        reference = Reference(base, adapters, adapter)
        studies = {}
        for task, own in rows.items():
            told = options.routes.get(task, options.routes.get(None))
            given = (told,) if isinstance(told, Route) else told
            metric = {task: metrics[task]} if metrics and task in metrics else {}
            questions = [reference.question(row) for row in own]
            studies[task] = study_task(reference, questions, adapter.groups, given, metric)
    return RouteStudy(adapter.router, adapter.groups, adapter.experts, studies)


def _read(base: Path | None, adapters: Sequence[Path], options: ExportOptions) -> TuckaAdapter:
    adapter = read_adapter(adapters, top_k=options.top_k, tasks=options.tasks)
    if not isinstance(adapter, TuckaAdapter):
        raise UsageError("--calibration-data measures TuckA's route, for --mode static or conditioned")
    if base is None:
        raise UsageError("--calibration-data runs the model in PyTorch: give its transformers folder as BASE")
    return adapter
