"""What a token gets does not depend, to the bit, on its neighbours, the tile that it falls in, or the threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.kernels.examples import DELTAS, pyramid_routers, tucker_routers
from tests.runtime.kernels.operators import Example, graph, library, run

profile = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    library()


def _per_row(example: Example, rows: int) -> list[str]:
    """The shared inputs that have a row for each row of the batch."""
    names = [name for name in example.shared if name in ("x", "route", "task_id")]
    names += [name for name in ("group", "weights", "mask") if len(example.shared.get(name, ())) == rows]
    return names


@pytest.mark.parametrize("operator", DELTAS)
@profile
@given(st.data())
def test_threads(operator: str, data: st.DataObject) -> None:
    example = data.draw(DELTAS[operator](layout=(100, (100, 31))))
    one, two, body = (
        run(graph(example), example.arrays, kernels=kernels, threads=threads)
        for kernels, threads in ((True, 1), (True, 2), (False, 1))
    )
    for a, b, c in zip(one, two, body, strict=True):
        assert a.tobytes() == b.tobytes()
        assert a.shape == c.shape


@pytest.mark.parametrize("operator", DELTAS)
@profile
@given(st.data(), st.sampled_from([1, 2, 5, 8, 9, 20]), st.booleans())
def test_a_row_alone(operator: str, data: st.DataObject, length: int, constants: bool) -> None:
    rows = 13
    example = data.draw(DELTAS[operator](layout=(rows, (rows, length))))
    together = run(graph(example, constants=constants), example.arrays, kernels=True)
    names = _per_row(example, rows)
    for some in ([0], [rows - 1], [3, 7, 12], list(range(rows))[::-1]):
        part = example.of_rows(some, names)
        alone = run(graph(part, constants=constants), part.arrays, kernels=True)
        sees = (part.shared.get("task_id", np.zeros(1)) < 0).any()  # similarities are there where a row asks for them
        for a, b in zip(*((alone, together) if sees else (alone[: len(part.y)], together[: len(part.y)])), strict=True):
            assert a.tobytes() == b[some].tobytes()


@profile
@given(pyramid_routers())
def test_a_row_alone_in_the_router_of_tasks(example: Example) -> None:
    rows = len(example.shared["task_id"])
    together = run(graph(example), example.arrays, kernels=True)
    if len(example.shared["x"]) != rows:
        return  # flattened: a row is several entries of x
    for row in range(rows):
        part = example.of_rows([row], ["task_id", "x"])
        for index, (a, b) in enumerate(zip(run(graph(part), part.arrays, kernels=True), together, strict=True)):
            if index < 2 or part.shared["task_id"][0] < 0:  # similarities are there where a row asks for them
                assert a.tobytes() == b[[row]].tobytes()


@profile
@given(tucker_routers())
def test_a_row_alone_in_the_router_of_groups(example: Example) -> None:
    rows = len(example.shared["x"])
    if len(example.shared["mask"]) != rows:
        return  # one route for the batch
    together = run(graph(example), example.arrays, kernels=True)
    for row in range(rows):
        part = example.of_rows([row], ["x", "mask"])
        for a, b in zip(run(graph(part), part.arrays, kernels=True), together, strict=True):
            assert a.tobytes() == b[[row]].tobytes()


def test_nan_stays_in_its_row() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 2, 9)).astype(np.float32), rng.normal(size=(12, 2, 7)).astype(np.float32)
    own = {"a": rng.normal(size=(2, 9, 5)).astype(np.float32), "b": rng.normal(size=(2, 5, 7)).astype(np.float32)}
    sound = Example("LowRankDelta", [y], {"x": x, "route": np.arange(12) % 2}, [own])
    want = run(graph(sound), sound.arrays, kernels=True)[0]
    x[5, 1] = np.nan
    got = run(graph(sound), sound.arrays, kernels=True)[0]
    assert np.isnan(got[5, 1]).all()
    got[5, 1] = want[5, 1]
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("operator", DELTAS)
@profile
@given(data=st.data(), in_place=st.booleans())
def test_a_bias_is_added_first(operator: str, data: st.DataObject, in_place: bool) -> None:
    """As the base would add it before the operator of the same name without Biased, to the bit."""
    example = data.draw(DELTAS[operator]().filter(lambda e: len(e.biases) > 0))
    added = [y + bias.astype(np.float32) for y, bias in zip(example.y, example.biases, strict=True)]
    plain = replace(example, y=added, biases=())
    outputs = len(example.y)
    got = run(graph(example, in_place=in_place), example.arrays, kernels=True)[:outputs]
    want = run(graph(plain), plain.arrays, kernels=True)[:outputs]
    for a, b in zip(got, want, strict=True):
        assert a.tobytes() == b.tobytes()
