"""What a row's label means for its task: a number, a value, or which labels of several."""

from __future__ import annotations

from typing import Any

import numpy as np

from eptx.bundle import Task
from eptx.errors import DataError
from eptx.manifest.names import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from eptx.runtime.measure.rows import Row


def kind_of(problem_type: str | None, labels: int | str) -> str:
    """The kind of a row's logits, by their problem type and number."""
    if problem_type == REGRESSION:
        return "value" if labels == 1 else "vector"
    return {SINGLE_LABEL: "labels", MULTI_LABEL: "sets"}.get(problem_type or "", "vector")


def label_number(row: Row, task: Task, kind: str) -> float:
    """A label as a number, to compare a decision with."""
    label = row.label
    if isinstance(label, str) and task.label_names and label in task.label_names:
        return task.label_names.index(label)
    number = None if isinstance(label, bool) or not isinstance(label, int | float) else float(label)
    if number is None or not np.isfinite(number):
        known = f"; it has {', '.join(task.label_names)}" if task.label_names else ""
        raise DataError(f"{row.where}: a label of {task.name} is {label!r:.60}, which is not one of the task's{known}")
    if kind == "labels" and (number != int(number) or not 0 <= number < (task.labels or np.inf)):
        most = "" if task.labels is None else f" to {task.labels - 1}"
        raise DataError(f"{row.where}: a label of {task.name} is {label!r}, out of range; they are 0{most}")
    return number


def label_set(row: Row, task: Task, labels: int | None) -> np.ndarray:
    """A row's labels as bool [labels]: a list of their names or numbers, or one decimal, 0.0 or 1.0, for each label.

    Raises:
        DataError: it is none of these.
    """
    given = row.label if isinstance(row.label, tuple) else (row.label,)
    if labels is None:
        raise DataError(f"{row.where}: how many labels {task.name} has is not known, so they cannot be compared")
    if len(given) == labels and all(isinstance(flag, float) and flag in (0.0, 1.0) for flag in given):
        return np.array(given, dtype=bool)
    names = task.label_names or ()
    numbers: list[Any] = [names.index(label) if isinstance(label, str) and label in names else label for label in given]
    wrong = [label for label in numbers if type(label) is not int or not 0 <= label < labels]
    if wrong:
        known = ", ".join(names) or f"0 to {labels - 1}"
        raise DataError(f"{row.where}: {wrong[0]!r:.60} is no label of {task.name}; it has {known}")
    if len(set(numbers)) != len(numbers):
        advice = "name each once, or give a decimal (0.0, 1.0) for every label"
        raise DataError(f"{row.where}: a label of {task.name} appears twice; {advice}")
    return np.isin(np.arange(labels), numbers)
