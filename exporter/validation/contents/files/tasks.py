"""The tasks of a bundle, compared with the trained ones: names, ids, labels, names of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eptx.bundle import Manifest, Sources, Task
from eptx.manifest.names import BASE_TASK, TASK_ID
from eptx.runtime.validation.check import Check


@dataclass(frozen=True)
class ExpectedTask:
    """One trained task.

    Attributes:
        name: how a request names it.
        labels: how many logits the task has; None without a classifier of its own.
        label_names: their names; None without any.
        given: whether the user of the validation names the labels, so that no file counts.
        problem_type: how the trained class reads the logits; None without logits, or if it does not matter.
    """

    name: str
    labels: int | None
    label_names: tuple[str, ...] | None
    problem_type: str | None = None
    given: bool = False


def compare_tasks(manifest: Manifest, tasks: Sequence[ExpectedTask], off: Sequence[ExpectedTask]) -> list[Check]:
    """Compares the tasks of ``eptx.json`` with the trained ones.

    Args:
        manifest: of the bundle.
        tasks: the trained tasks by id, without the task ``base``; of a static bundle, its one task.
        off: the task ``base``, where rows can switch the adapter off; empty if the base alone lacks a module.
    """
    wanted = [*tasks, *_base(manifest, off)]
    found = {task.name: task for task in manifest.tasks}
    checks = [Check("eptx.json: tasks", "compared", _wrong_list(manifest.tasks, [task.name for task in wanted]))]
    for task in wanted:
        if task.name in found:
            checks += _labels(found[task.name], task, manifest.sources)
    return checks


def _base(manifest: Manifest, off: Sequence[ExpectedTask]) -> Sequence[ExpectedTask]:
    """The task ``base``, which comes last: only where an input chooses the task, and data do not choose the route."""
    chosen = any(spec.name == TASK_ID for spec in manifest.inputs)
    routed = manifest.routing is not None
    named = any(task.name == BASE_TASK for task in manifest.tasks)
    return off if chosen and (named or not routed) else ()


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


def _problem(found: Task, wanted: str, name: str, told: bool) -> Check:
    if found.problem_type != wanted and told:
        return Check(name, "unchecked", why=f"the export was told {found.problem_type}; the trained model has {wanted}")
    wrong = None if found.problem_type == wanted else f"says {found.problem_type}; the trained model has {wanted}"
    return Check(name, "compared", wrong)


def _labels(found: Task, wanted: ExpectedTask, sources: Sources) -> Iterator[Check]:
    where = f"eptx.json: task {found.name}"
    told = (sources.problem_types or {}).get(found.name)
    names = (sources.label_names or {}).get(found.name)
    wrong = None
    if found.labels != wanted.labels:
        wrong = f"says {_count(found.labels)}; the trained model has {_count(wanted.labels)}"
    yield Check(f"{where}: labels", "compared", wrong)
    wrong = _wrong_names(found, wanted)
    if wrong is not None and not wanted.given and names is not None and names == found.label_names:
        why = f"the export was told them by --labels (it {wrong}): give --labels here too, to compare them"
        yield Check(f"{where}: label_names", "unchecked", why=why)
    else:
        yield Check(f"{where}: label_names", "compared", wrong)
    if wanted.problem_type is not None:
        yield _problem(
            found, wanted.problem_type, f"{where}: problem_type", told is not None and told == found.problem_type
        )


def _wrong_names(found: Task, wanted: ExpectedTask) -> str | None:
    generic = tuple(f"LABEL_{i}" for i in range(found.labels or 0))
    if found.label_names == wanted.label_names:
        return None
    if {found.label_names, wanted.label_names} <= {None, generic}:
        return None  # transformers' names for labels without names
    if wanted.label_names is None:
        return f"names {_list(found.label_names)}; nothing that was trained names labels"
    return f"names {_list(found.label_names)}; the trained model names {_list(wanted.label_names)}"


def _count(labels: int | None) -> str:
    return "no labels of its own" if labels is None else f"{labels} labels"


def _list(names: tuple[str, ...] | None) -> str:
    return "none" if names is None else ", ".join(map(repr, names))
