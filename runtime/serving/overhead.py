"""What a run costs beside its tokens, which decides how much padding and how many rows one run is worth."""

from __future__ import annotations

import time

import numpy as np

from eptx._manifest import TASK_ID
from eptx.runtime.outputs import Array
from eptx.runtime.session import Session

_SMALL, _LARGE = (1, 8), (8, 64)  # rows, tokens
_ROUNDS, _SECONDS = 5, 1.0
_LEAST, _MOST = 8, 16384
#: Where it is not measured.
USUAL = 48


def run_overhead(session: Session) -> int:
    """The tokens that would take as long as what a run costs beside its own: few on a small CPU, more on a GPU.

    The least times of a small and of a large run lie on a line whose slope is a token's time; they are also what warms
    the session up.

    Args:
        session: of a model that reads ``input_ids``, opened.
    """
    longest = session.manifest.max_length or _LARGE[1]
    shapes = [(rows, min(length, longest)) for rows, length in (_SMALL, _LARGE)]
    (small, least), (large, most) = ((rows * length, _least_time(session, rows, length)) for rows, length in shapes)
    token = (most - least) / max(large - small, 1)
    if token <= 0:  # the large run is as fast as the small one
        return _MOST
    return int(np.clip((least - small * token) / token, _LEAST, _MOST))


def _least_time(session: Session, rows: int, length: int) -> float:
    inputs = _inputs(session, rows, length)
    times: list[float] = []
    while len(times) < _ROUNDS and sum(times) < _SECONDS:
        began = time.perf_counter()
        session.run(inputs)
        times.append(time.perf_counter() - began)
    return min(times[1:], default=times[0])


def _inputs(session: Session, rows: int, length: int) -> dict[str, Array]:
    values = {"attention_mask": 1, TASK_ID: session.manifest.tasks[0].id}
    return {
        spec.name: np.full((rows,) if spec.name == TASK_ID else (rows, length), values.get(spec.name, 0), spec.dtype)
        for spec in session.inputs
    }
