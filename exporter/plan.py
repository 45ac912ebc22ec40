"""Which task and which routes an export is about, and whether its options fit the adapter."""

from __future__ import annotations

from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.route import Frozen, Route
from eptx.exporter.bases.weights.whole import Saved
from eptx.exporter.methods.read import BASE_TASK
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.options import ExportOptions


def check_options(adapter: Adapter, options: ExportOptions) -> None:
    """Compares the options with the adapter, before any work is done.

    Raises:
        UsageError: they contradict each other, or something is missing.
        NotSupportedError: the method has no such mode.
    """
    if options.mode == "static":
        task = static_task(adapter, options)
        if adapter.heads is not None and not adapter.heads.labels(task):
            raise UsageError(f"task {task!r} has no head; these have one: {', '.join(adapter.heads.weights)}")
    if isinstance(adapter, TuckaAdapter):
        if options.mode != "dynamic":
            routes_by_task(adapter, options)
        return
    if options.routes:
        raise UsageError(f"--route is for TuckA adapters; this one is {adapter.method}")
    if options.routing != "batch":
        raise UsageError(f"--routing is for TuckA adapters; this one is {adapter.method}")
    if adapter.method == "lora" and options.mode == "dynamic":
        raise NotSupportedError("LoRA has no router: use --mode conditioned or --mode static")


def serves_base(adapter: Adapter, options: ExportOptions) -> bool:
    """Whether rows of a bundle may switch the adapter off: not where it holds one task, or a route of all rows."""
    return options.mode == "conditioned" or (options.mode == "dynamic" and adapter.method != "tucka")


def saved_modules(adapter: Adapter, options: ExportOptions) -> Saved:
    """The modules that the tasks of an export bring whole."""
    tasks = (static_task(adapter, options),) if options.mode == "static" else adapter.tasks
    return Saved(tasks, adapter.saved, serves_base(adapter, options))


def static_task(adapter: Adapter, options: ExportOptions) -> str:
    """The task that a static export folds.

    Raises:
        UsageError: it is missing or unknown.
    """
    if options.task is None:
        if len(adapter.tasks) == 1:
            return adapter.tasks[0]
        raise UsageError(f"--mode static folds one task: give --task, one of {', '.join(adapter.tasks)}")
    if options.task == BASE_TASK:
        raise UsageError("a static bundle of the task base would be the base model itself; export that instead")
    if options.task not in adapter.tasks:
        raise UsageError(f"unknown task {options.task!r}; the adapter has {', '.join(adapter.tasks)}")
    return options.task


def routes_by_task(adapter: TuckaAdapter, options: ExportOptions) -> list[Frozen]:
    """The frozen routes of every task, by id (of the folded task alone, in a static export, the others share them).

    Raises:
        UsageError: a task has no route, or a route does not fit the adapter.
    """
    unknown = [task for task in options.routes if task is not None and task not in adapter.tasks]
    if unknown:
        raise UsageError(f"--route names an unknown task {unknown[0]!r}; the adapter has {', '.join(adapter.tasks)}")
    needed = adapter.tasks if options.mode == "conditioned" else (static_task(adapter, options),)
    common = options.routes.get(None)
    for task in needed:
        if options.routes.get(task, common) is None:
            raise UsageError(
                f"TuckA's route depends on the data; freezing it for task {task!r} needs --route GROUP:W1,W2,... "
                "or --calibration-data FILE.jsonl"
            )
    fallback = common or next(iter(options.routes.values()), ())
    found = [options.routes.get(task, fallback) for task in adapter.tasks]
    routes = [(given,) if isinstance(given, Route) else tuple(given) for given in found]
    for route in (route for frozen in routes for route in frozen):
        route.check(adapter.groups, adapter.experts)
    return routes
