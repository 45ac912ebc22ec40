"""What a calibration may lose, from what the user says and does not say."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from eptx.calibration import Search
from eptx.runtime.measure import Source

TASKS = ("cola", "mnli", "stsb")


@pytest.mark.parametrize(
    ("said", "points"),
    [({}, (0.5, 0.5, 0.5)), ({"mnli": 2.0}, (0.5, 2.0, 0.5)), ({None: 1.0, "stsb": 0.0}, (1.0, 1.0, 0.0))],
)
def test_every_task_has_a_budget(said: Mapping[str | None, float], points: tuple[float, ...]) -> None:
    options = Search(data=[Source([])], max_drop=said)
    assert options.budget(TASKS) == dict(zip(TASKS, points, strict=True))
