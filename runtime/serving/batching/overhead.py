"""A run's overhead: what it costs beside its tokens. It decides how much padding and how many rows are worth a run."""

from __future__ import annotations

import time

import numpy as np

from eptx.errors import EptxError
from eptx.manifest.names import TASK_ID
from eptx.runtime.outputs import Array
from eptx.runtime.serving.limits import Limits
from eptx.runtime.session import Session

_SMALL, _LARGE = (1, 8), (8, 64)  # rows, tokens
_ROUNDS, _SECONDS = 5, 1.0
#: The least and the most that was ever measured, on any processor.
_LEAST, _MOST = 8, 512
#: Taken if it is not measured.
USUAL = 48


def run_overhead(session: Session, limits: Limits) -> int:
    """The overhead in tokens: how many tokens take as long. Few on a small CPU, more on a GPU.

    A small and a large run are timed. Their least times lie on a line whose slope is a token's time. The runs also warm
    the session up.

    Args:
        session: of a model that reads ``input_ids``, opened.
        limits: that the large run stays within.
    """
    longest = session.manifest.max_length or _LARGE[1]
    shapes = [
        (min(rows, limits.max_batch), min(length, longest, limits.max_tokens)) for rows, length in (_SMALL, _LARGE)
    ]
    if shapes[1][0] * shapes[1][1] > limits.max_tokens or shapes[0] == shapes[1]:
        return USUAL
    try:
        (small, least), (large, most) = ((rows * length, _least_time(session, rows, length)) for rows, length in shapes)
    except EptxError:  # a model that takes other shapes answers its requests all the same
        return USUAL
    token = (most - least) / (large - small)
    if token <= 0:  # the large run is as fast as the small one
        return _MOST
    return int(np.clip((least - small * token) / token, _LEAST, _MOST))


def _least_time(session: Session, rows: int, length: int) -> float:
    arrays = session.check(_inputs(session, rows, length))
    session.run_checked(arrays)  # the first run also allocates
    times: list[float] = []
    while not times or (len(times) < _ROUNDS and sum(times) < _SECONDS):
        began = time.perf_counter()
        session.run_checked(arrays)
        times.append(time.perf_counter() - began)
    return min(times)


def _inputs(session: Session, rows: int, length: int) -> dict[str, Array]:
    values = {"attention_mask": 1, TASK_ID: session.manifest.tasks[0].id}
    return {
        spec.name: np.full((rows,) if spec.name == TASK_ID else (rows, length), values.get(spec.name, 0), spec.dtype)
        for spec in session.inputs
    }
