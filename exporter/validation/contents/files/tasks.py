"""The tasks of a bundle against those that were trained: names, ids, labels and their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eptx.bundle import Manifest, Task
from eptx.exporter.validation.check import Part
from eptx.manifest.names import BASE_TASK, TASK_ID


@dataclass(frozen=True)
class ExpectedTask:
    """One task that was trained.

    Attributes:
        name: how a request names it.
        labels: how many logits count; None without a classifier of the task's own.
        label_names: their names; None where the sources name none.
        problem_type: what the trained class takes its logits for; None where it has none, or that is not asked.
    """

    name: str
    labels: int | None
    label_names: tuple[str, ...] | None
    problem_type: str | None = None


def compare_tasks(
    manifest: Manifest, tasks: Sequence[ExpectedTask], off: Sequence[ExpectedTask] | None = None
) -> list[Part]:
    """Holds the tasks of ``eptx.json`` to those that were trained.

    Args:
        manifest: of the bundle.
        tasks: what was trained, by id, without the task base; of a static bundle the one that it holds.
        off: the task base, where rows can switch the adapter off: none where the base alone is not the whole class.
            None: the base has the class's head, or heads beside the adapter are switched off with it.
    """
    wanted = [*tasks, *_base(manifest, tasks, off)]
    found = {task.name: task for task in manifest.tasks}
    parts = [Part("eptx.json: tasks", "compared", _wrong_list(manifest.tasks, [task.name for task in wanted]))]
    for task in wanted:
        if task.name in found:
            told = (manifest.sources.problem_types or {}).get(task.name)
            parts += _labels(found[task.name], task, told is not None and told == found[task.name].problem_type)
    return parts


def _base(
    manifest: Manifest, tasks: Sequence[ExpectedTask], off: Sequence[ExpectedTask] | None
) -> Iterator[ExpectedTask]:
    """The task base, which comes last: where an input chooses the task, and a route that data decides does not."""
    chosen = any(spec.name == TASK_ID for spec in manifest.inputs)
    routed = manifest.routing is not None
    named = any(task.name == BASE_TASK for task in manifest.tasks)
    if chosen and (named or not routed) and off is not None:
        yield from off
    elif chosen and (named or not routed):
        yield ExpectedTask(BASE_TASK, 0 if any(task.labels is not None for task in tasks) else None, None)


def _wrong_list(found: Sequence[Task], wanted: Sequence[str]) -> str | None:
    names = [task.name for task in found]
    for name in wanted:
        if name not in names:
            return f"lacks the task {name!r}"
    for name in names:
        if name not in wanted:
            return f"names a task {name!r} that was not trained"
    for task in found:
        if task.id != wanted.index(task.name):
            return f"task {task.name!r} has id {task.id}; it was trained as {wanted.index(task.name)}"
    if names != list(wanted):
        return f"has the order {', '.join(names)}; they were trained in the order {', '.join(wanted)}"
    return None


def _problem(found: Task, wanted: str, name: str, told: bool) -> Part:
    if found.problem_type != wanted and told:
        return Part(name, "neither", why=f"the export was told {found.problem_type}; the trained model has {wanted}")
    wrong = None if found.problem_type == wanted else f"says {found.problem_type}; the trained model has {wanted}"
    return Part(name, "compared", wrong)


def _labels(found: Task, wanted: ExpectedTask, told: bool) -> Iterator[Part]:
    where = f"eptx.json: task {found.name}"
    wrong = None
    if found.labels != wanted.labels:
        wrong = f"says {_count(found.labels)}; the trained model has {_count(wanted.labels)}"
    yield Part(f"{where}: labels", "compared", wrong)
    yield Part(f"{where}: label_names", "compared", _wrong_names(found, wanted))
    if wanted.problem_type is not None:
        yield _problem(found, wanted.problem_type, f"{where}: problem_type", told)


def _wrong_names(found: Task, wanted: ExpectedTask) -> str | None:
    generic = tuple(f"LABEL_{i}" for i in range(found.labels or 0))
    if found.label_names == wanted.label_names:
        return None
    if {found.label_names, wanted.label_names} <= {None, generic}:
        return None  # transformers' names for labels without any
    if wanted.label_names is None:
        return f"names {_list(found.label_names)}; nothing that was trained names labels"
    return f"names {_list(found.label_names)}; the trained model names {_list(wanted.label_names)}"


def _count(labels: int | None) -> str:
    return "no labels of its own" if labels is None else f"{labels} labels"


def _list(names: tuple[str, ...] | None) -> str:
    return "none" if names is None else ", ".join(map(repr, names))
