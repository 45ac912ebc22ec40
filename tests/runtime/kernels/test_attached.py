"""Adapters as they are attached, in every mode: the model computes the same with the kernels, its routers too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.graph.settings import GraphSettings
from eptx.manifest.names import OPERATOR_DOMAIN
from tests.runtime.kernels.operators import library, run
from tests.support.linear_graph import attached
from tests.support.several_linears import Several
from tests.support.strategies import Linear, ept_adapters, linears, lora_adapters, tucka_adapters

profile = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
DOUBLE, FLOAT = ir.DataType.DOUBLE, ir.DataType.FLOAT


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    library()


def _narrow(model: ir.Model, *, half: bool) -> ir.Model:
    """A float64 model in float32; with `half` the operators' own numbers, but routers', are stored as float16."""
    for value in [*model.graph.initializers.values()]:
        if value.const_value is not None and value.dtype == DOUBLE:
            routes = any(part in str(value.name) for part in ("gate", "task_embedding", "tucka_ec"))
            owned = half and not routes and all(user.domain == OPERATOR_DOMAIN for user, _ in value.uses())
            array = value.const_value.numpy().astype(np.float16 if owned else np.float32)
            value.const_value = ir.Tensor(array, name=value.name)
            value.type = ir.TensorType(value.const_value.dtype)
    for value in (*model.graph.inputs, *(output for node in model.graph for output in node.outputs)):
        if value.dtype == DOUBLE:
            value.type = ir.TensorType(FLOAT)
    return model


def _check(model: ir.Model, feeds: Mapping[str, np.ndarray], *, half: bool, optimize: bool, expose: bool) -> None:
    """Both ways to run it agree; with `expose` the base's outputs are the graph's too, and may not be overwritten."""
    model = _narrow(model, half=half)
    kept: list[ir.Value] = []
    if expose:
        nodes = [node for node in model.graph if node.domain == OPERATOR_DOMAIN and "Delta" in node.op_type]
        kept = [y for node in nodes for y in node.inputs[: len(node.outputs)] if y is not None and y.producer()]
        model.graph.outputs.extend(value for value in dict.fromkeys(kept) if not value.is_graph_output())
    feeds = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in feeds.items()}
    got, want = (run(model, feeds, kernels=kernels, optimize=optimize) for kernels in (True, False))
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        # Sums of some hundred products of numbers from a normal distribution: their terms are a few times their result.
        assert np.abs(a - b).max() <= 1e-5 * max(1.0, np.abs(b).max())


BOOLEANS = st.booleans()
PACKING = st.tuples(st.integers(0, 3), st.integers(0, 3))


@profile
@given(st.data(), PACKING, st.sampled_from(["conditioned", "dynamic"]), BOOLEANS, BOOLEANS, BOOLEANS)
def test_ept(
    data: st.DataObject, packing: tuple[int, int], mode: Any, half: bool, optimize: bool, expose: bool
) -> None:
    linear = data.draw(linears())
    adapter = data.draw(ept_adapters(linear))
    lowest = -1 if mode == "dynamic" else 0
    ids = linear.rng.integers(lowest, len(adapter.tasks) + 1, size=len(linear.x))
    before, after = packing
    model = attached(adapter, linear.weight, linear.x.shape, GraphSettings(mode), before=before, after=after)
    _check(model, {"x": linear.x, "task_id": ids}, half=half, optimize=optimize, expose=expose)


@profile
@given(st.data(), PACKING, st.sampled_from(["frozen", "batch", "row"]), BOOLEANS, BOOLEANS, BOOLEANS)
def test_tucka(
    data: st.DataObject, packing: tuple[int, int], routing: Any, half: bool, optimize: bool, expose: bool
) -> None:
    linear = data.draw(linears())
    if linear.x.ndim == 2:  # a router sees [batch, length, in]
        linear = Linear(linear.weight, linear.x[:, None], linear.rng)
    adapter = data.draw(tucka_adapters(linear))
    rng, (before, after) = linear.rng, packing
    routes = [Route(int(rng.integers(adapter.groups)), tuple(rng.random(adapter.experts))) for _ in range(3)]
    plan = (
        GraphSettings("dynamic", routing=routing)
        if routing != "frozen"
        else GraphSettings("conditioned", routes=[(route,) for route in routes])
    )
    model = attached(adapter, linear.weight, linear.x.shape, plan, before=before, after=after)
    ids = rng.integers(0, 4, size=len(linear.x))
    _check(model, {"x": linear.x, "task_id": ids}, half=half, optimize=optimize, expose=expose)


@profile
@given(st.data(), PACKING, BOOLEANS, BOOLEANS, BOOLEANS)
def test_lora(data: st.DataObject, packing: tuple[int, int], half: bool, optimize: bool, expose: bool) -> None:
    linear = data.draw(linears())
    adapter = data.draw(lora_adapters(linear))
    ids = linear.rng.integers(0, len(adapter.tasks) + 1, size=len(linear.x))
    before, after = packing
    model = attached(adapter, linear.weight, linear.x.shape, GraphSettings("conditioned"), before=before, after=after)
    _check(model, {"x": linear.x, "task_id": ids}, half=half, optimize=optimize, expose=expose)


ROUTES = [(Route(1, (0.3, 0.6)),), (Route(0, (0.9, 0.2)),), (Route(1, (0.5, 0.1)),)]
PLANS = {
    "ept": [GraphSettings("conditioned"), GraphSettings("dynamic")],
    "lora": [GraphSettings("conditioned")],
    "tucka": [
        GraphSettings("conditioned", routes=ROUTES),
        GraphSettings("dynamic"),
        GraphSettings("dynamic", routing="row"),
    ],
}
CASES = [(method, plan) for method, plans in PLANS.items() for plan in plans]


@settings(profile, max_examples=40)
@given(st.data(), st.sampled_from(CASES), st.lists(st.integers(4, 20), min_size=1, max_size=6), BOOLEANS, BOOLEANS)
def test_several(
    data: st.DataObject, case: tuple[str, GraphSettings], widths: list[int], packed: bool, optimize: bool
) -> None:
    method, plan = case
    gaps = data.draw(st.lists(st.integers(0, 3), min_size=len(widths) + 1, max_size=len(widths) + 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    several = Several.of(widths, gaps if packed else None, rng)
    adapter: Adapter = several.adapter(method)
    lowest = -1 if method == "ept" and plan.mode == "dynamic" else 0
    ids = rng.integers(lowest, 3, size=len(several.x))
    model = several.attached(adapter, plan)
    half, expose = data.draw(BOOLEANS), data.draw(BOOLEANS)
    _check(model, {"x": several.x, "task_id": ids}, half=half, optimize=optimize, expose=expose)
