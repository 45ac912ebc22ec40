"""The arguments and options that say which adapted model a command is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from eptx.cli.parts.common import PATH, names, pickle_option
from eptx.errors import UsageError
from eptx.files.strict_json import read_json_object
from eptx.manifest.names import EXPORT_PROVIDERS, ROUTINGS

if TYPE_CHECKING:
    from eptx.calibration import Search
    from eptx.exporter import ExportOptions
    from eptx.exporter.options import Precision

F = TypeVar("F", bound=Callable[..., Any])


problem_option = click.option(
    "--problem-type",
    "problem_types",
    multiple=True,
    metavar="TASK=TYPE",
    help="How a task's logits are read, where the base's config.json does not say it: regression, "
    "single_label_classification or multi_label_classification. Repeatable.",
)


def model_options(command: F) -> F:
    """What an export is told beside mode and precision."""
    for option in (
        click.option(
            "--provider",
            type=click.Choice(EXPORT_PROVIDERS),
            default="cpu",
            show_default=True,
            help="Execution provider that the graph is fused for.",
        ),
        click.option(
            "--min-ort",
            metavar="VERSION",
            help="A release of ONNX Runtime, such as 1.17, that must load the bundle; refused where it cannot.",
        ),
        click.option(
            "--module-map",
            type=PATH,
            metavar="FILE.json",
            help="Module name to node or initializer name, for modules that are not found.",
        ),
        click.option(
            "--base-onnx",
            type=PATH,
            metavar="FILE.onnx",
            help="Use this ONNX file of the base; BASE may then be left out.",
        ),
        click.option(
            "--route",
            multiple=True,
            metavar="[TASK=]GROUP:W1,W2,...",
            help="Static and conditioned, where the route depends on the data: the frozen route (of one task); "
            "several, joined by /, where the base calls the router several times.",
        ),
        click.option(
            "--routing",
            type=click.Choice(ROUTINGS),
            default="batch",
            show_default=True,
            help="Dynamic, where one router routes all modules: one route for the batch, as released, one per row, or "
            "one per row's prompt.",
        ),
        click.option("--top-k", type=int, help="Experts per task, where the adapter's files do not say it."),
        click.option("--tasks", help="Names of the tasks by id, separated by commas (default: task0, task1, ...)."),
        problem_option,
        click.option(
            "--labels",
            type=PATH,
            metavar="FILE.json",
            help="Names of the labels, where neither the adapter nor the base has them: task to names, or the names of "
            "the only task.",
        ),
        click.option(
            "--model-class",
            metavar="NAME",
            help="The transformers class to load the base as, where the adapter does not decide it; AutoModel leaves "
            "out a head.",
        ),
        click.option("--task", help="static: the task to fold into the weights."),
        pickle_option,
    ):
        command = option(command)
    return command


def export_options(settings: dict[str, Any], precision: Precision | Search) -> ExportOptions:
    """The options of an export from those of a command, but the precision.

    Raises:
        UsageError: one is not of its form.
    """
    from eptx.exporter import ExportOptions
    from eptx.exporter.adapters.label_names import read_labels
    from eptx.exporter.adapters.routing.route import Frozen, parse_frozen

    module_map, labels = settings.pop("module_map"), settings.pop("labels")
    routes: dict[str | None, Frozen] = {}
    for text in settings.pop("route"):
        name, found, route = text.rpartition("=")
        task = name if found else None
        if task in routes:
            raise UsageError(f"--route is given twice for {'every task' if task is None else task!r}")
        routes[task] = parse_frozen(route)
    return ExportOptions(
        problem_types=read_problems(settings.pop("problem_types")),
        labels=read_labels(labels) if labels else {},
        tasks=names(settings.pop("tasks")),
        routes=routes,
        module_map=read_json_object(module_map, error=UsageError) if module_map else None,
        precision=precision,
        **settings,
    )


def read_problems(texts: Sequence[str]) -> dict[str, str]:
    """Task -> its problem type, as options say it.

    Raises:
        UsageError: one is not of its form.
    """
    problems: dict[str, str] = {}
    for text in texts:
        task, found, kind = text.rpartition("=")
        if not found:
            raise UsageError(f"--problem-type {text!r}: must be TASK=TYPE")
        problems[task] = kind
    return problems
