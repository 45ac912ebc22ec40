"""How many points of its metric each task may lose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eptx.errors import DataError


def check_points(given: Mapping[str | None, float]) -> None:
    """Raises DataError for a budget that is not a number of points."""
    for task, points in given.items():
        if not (math.isfinite(points) and points >= 0):
            where = f" of {task}" if task is not None else ""
            raise DataError(f"--max-drop{where}: {points} is not a number of points, 0 or more")


def budgets(stated: Mapping[str, float], given: Mapping[str | None, float], tasks: Sequence[str]) -> dict[str, float]:
    """Task -> points that it may lose; a task without a budget is not in it.

    Args:
        stated: what the bundle says.
        given: what the user says instead; the key None is for every task that is not named.
        tasks: of the bundle.

    Raises:
        DataError: the user names an unknown task.
    """
    for task in given:
        if task is not None and task not in tasks:
            raise DataError(f"--max-drop names an unknown task {task!r}; there are {', '.join(tasks)}")
    common = dict.fromkeys(tasks, given[None]) if None in given else {}
    named = {task: points for task, points in given.items() if task is not None}
    return {task: points for task, points in {**stated, **common, **named}.items() if task in tasks}
