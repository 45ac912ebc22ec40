"""A node computes the same with the kernels and by its function's body, up to the rounding of float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eptx.manifest.names import OPERATOR_DOMAIN
from tests.runtime.kernels.examples import DELTAS, pyramid_routers, tucker_routers
from tests.runtime.kernels.operators import TOLERANCE, Example, close, graph, library, run

profile = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    library()


def _check(example: Example, *, constants: bool, in_place: bool, optimize: bool, threads: int) -> None:
    model = graph(example, constants=constants, in_place=in_place)
    got = run(model, example.arrays, kernels=True, optimize=optimize, threads=threads)
    want = run(model, example.arrays, kernels=False, optimize=optimize)
    size = run(graph(example.magnitudes(), in_place=in_place), example.magnitudes().arrays, kernels=False)
    outputs = len(example.y)
    close(got[:outputs], want[:outputs], size[:outputs])
    seen = outputs + (len(example.own) if example.operator == "RoutedPyramidDelta" else 0)
    for a, b in zip(got[outputs:seen], want[outputs:seen], strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)  # cosines
    for kept, y in zip(got[seen:], example.y if not in_place else (), strict=True):
        np.testing.assert_array_equal(kept, y)  # what others read is not written to


@pytest.mark.parametrize("operator", DELTAS)
@profile
@given(data=st.data(), constants=st.booleans(), in_place=st.booleans(), optimize=st.booleans())
def test_updates(operator: str, data: st.DataObject, constants: bool, in_place: bool, optimize: bool) -> None:
    example = data.draw(DELTAS[operator]())
    _check(example, constants=constants, in_place=in_place, optimize=optimize, threads=1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("operator", DELTAS)
@settings(profile, max_examples=6)
@given(data=st.data(), in_place=st.booleans())
def test_thousands_of_tokens(operator: str, threads: int, data: st.DataObject, in_place: bool) -> None:
    rows = data.draw(st.sampled_from([1, 7, 100]))
    layout = rows, (rows, 2501 // rows)
    example = data.draw(DELTAS[operator](layout=layout))
    _check(example, constants=True, in_place=in_place, optimize=True, threads=threads)


@pytest.mark.parametrize("operator", DELTAS)
@settings(profile, max_examples=6)
@given(data=st.data())
def test_many_rows_of_one_token(operator: str, data: st.DataObject) -> None:
    example = data.draw(DELTAS[operator](layout=(301, (301, 1))))
    _check(example, constants=True, in_place=True, optimize=True, threads=2)


@profile
@given(pyramid_routers(), st.booleans(), st.booleans())
def test_pyramid_router(example: Example, constants: bool, optimize: bool) -> None:
    model = graph(example, constants=constants)
    got = run(model, example.arrays, kernels=True, optimize=optimize)
    want = run(model, example.arrays, kernels=False, optimize=optimize)
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if index == 0:
            np.testing.assert_array_equal(a, b)
        else:  # weights and cosines, at most 1; the exponents of a softmax are sums of some tens
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


@profile
@given(tucker_routers(), st.booleans(), st.booleans())
def test_tucker_router(example: Example, constants: bool, optimize: bool) -> None:
    model = graph(example, constants=constants)
    group, weights = run(model, example.arrays, kernels=True, optimize=optimize)
    want = run(model, example.arrays, kernels=False, optimize=optimize)
    assert group.dtype == np.int64
    np.testing.assert_array_equal(group, want[0])
    assert weights.shape == want[1].shape
    np.testing.assert_allclose(weights, want[1], rtol=0, atol=TOLERANCE)  # of numbers below 1


@pytest.mark.parametrize("operator", DELTAS)
@settings(profile, max_examples=10)
@given(data=st.data(), optimize=st.booleans())
def test_y_that_is_x(operator: str, data: st.DataObject, optimize: bool) -> None:
    """TuckA updates x itself where that is the narrower side: then all modules' y and x are one value."""
    example = data.draw(DELTAS[operator]().filter(lambda e: e.columns is None))
    width = example.y[0].shape[-1]
    x = np.resize(example.shared["x"], (*example.shared["x"].shape[:-1], width))
    own = dict(example.own[0])
    factor = own["u" if operator == "TuckerDelta" else "a"]
    own["u" if operator == "TuckerDelta" else "a"] = np.resize(factor, (*factor.shape[:-2], width, factor.shape[-1]))
    for name in ("task_embedding", "gate_weight", *(["gate"] if operator == "TokenMixtureDelta" else [])):
        if name in own:
            own[name] = np.resize(own[name], (len(own[name]), width))
    count = len(example.y)
    attributes = {name: width if name == "in_features" else value for name, value in example.attributes.items()}
    shared = {**example.shared, "x": x}
    same = replace(example, y=[x] * count, own=[own] * count, shared=shared, attributes=attributes, biases=())
    results = []
    for kernels, of in ((True, same), (False, same), (False, same.magnitudes())):
        model = graph(of)
        node = next(node for node in model.graph if node.domain == OPERATOR_DOMAIN)
        for index in range(count + 1):
            node.replace_input_with(index, node.inputs[0])
        results.append(run(model, of.arrays, kernels=kernels, optimize=optimize)[:count])
    close(*results)
