"""Whether the options of an export fit its adapter."""

from __future__ import annotations

from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.bases.weights.whole import Saved
from eptx.exporter.methods.method import method_of, titles
from eptx.exporter.options import ExportOptions


def check_options(adapter: Adapter, options: ExportOptions) -> None:
    """Compares the options with the adapter, before any work is done.

    Raises:
        UsageError: they contradict each other, or something is missing.
        NotSupportedError: the method has no such mode.
    """
    if options.mode == "static":
        task = options.folded_task(adapter.tasks)
        if adapter.heads is not None and not adapter.heads.labels(task):
            raise UsageError(f"task {task!r} has no head; these have one: {', '.join(adapter.heads.weights)}")
    method = method_of(adapter.method)
    for flag, given in (("--route", bool(options.routes)), ("--routing", options.routing != "batch")):
        if given and flag not in method.flags:
            raise UsageError(f"{flag} is for {titles(flag)} adapters; this one is {adapter.method}")
    if options.mode not in method.modes:
        why = "has no router" if options.mode == "dynamic" else f"has no mode {options.mode}"
        others = " or ".join(f"--mode {mode}" for mode in reversed(method.modes))
        raise NotSupportedError(f"{method.title} {why}: use {others}")
    method.check(adapter, options)


def saved_modules(adapter: Adapter, options: ExportOptions, *, embeds: bool = False) -> Saved:
    """What the tasks of an export change of tensors.

    Args:
        adapter: the adapter.
        options: of the export.
        embeds: whether the base says how rows become embeddings: then those of ``base`` mean something without a head.
    """
    tasks = (options.folded_task(adapter.tasks),) if options.mode == "static" else adapter.tasks
    base = method_of(adapter.method).serves_base(options) and (adapter.heads is None or embeds)
    return Saved(tasks, adapter.changes, base)
