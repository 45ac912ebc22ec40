"""Fold, operator and PyTorch reference are three computations of one thing: they agree to 1e-10 in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.methods.ept.adapter import EptAdapter
from eptx.exporter.methods.ept.fold import fold as fold_ept
from eptx.exporter.methods.lora.method import METHOD as LORA
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.methods.tucka.fold import fold as fold_tucka
from tests.support.layers import ept_layer, tucka_layer
from tests.support.linear_graph import adapted
from tests.support.strategies import Linear, ept_adapters, linears, lora_adapters, tucka_adapters

TOLERANCE = 1e-10
PACKING = st.tuples(st.integers(0, 3), st.integers(0, 3))
profile = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE * max(1.0, np.abs(want).max())


def _rows(linear: Linear, choices: int) -> np.ndarray:
    return linear.rng.integers(0, choices, size=len(linear.x))


def _folded(linear: Linear, weights: list[np.ndarray]) -> np.ndarray:
    """Each row through its own weight."""
    return np.stack([row @ weight.T for row, weight in zip(linear.x, weights, strict=True)])


@profile
@given(st.data(), PACKING, st.booleans(), st.sampled_from([18, 20, 23]))
def test_ept(data: st.DataObject, packing: tuple[int, int], optimize: bool, opset: int) -> None:
    linear = data.draw(linears())
    adapter: EptAdapter = data.draw(ept_adapters(linear))
    tasks = len(adapter.tasks)
    ids = _rows(linear, tasks + 1)
    weights = [linear.weight if i == tasks else fold_ept(adapter, "linear", linear.weight, int(i)) for i in ids]
    want = _folded(linear, weights)
    layer, state = ept_layer(adapter, linear.weight)
    state.set(ids.tolist())
    with torch.no_grad():
        _close(layer(torch.from_numpy(linear.x)).numpy(), want)
    feeds = {"x": linear.x, "task_id": ids}
    for mode in ("conditioned", "dynamic"):
        plan = GraphSettings(mode)
        got = adapted(
            adapter, linear.weight, feeds, plan, before=packing[0], after=packing[1], optimize=optimize, opset=opset
        )
        _close(got, want)


@profile
@given(st.data())
def test_ept_infers_the_task_as_the_reference_does(data: st.DataObject) -> None:
    linear = data.draw(linears())
    adapter: EptAdapter = data.draw(ept_adapters(linear))
    layer, state = ept_layer(adapter, linear.weight)
    ids = np.full(len(linear.x), -1)
    state.set(ids.tolist(), lowest=-1)
    with torch.no_grad():
        want = layer(torch.from_numpy(linear.x)).numpy()
    _close(adapted(adapter, linear.weight, {"x": linear.x, "task_id": ids}, GraphSettings("dynamic")), want)


@profile
@given(st.data(), PACKING, st.booleans())
def test_tucka_frozen(data: st.DataObject, packing: tuple[int, int], optimize: bool) -> None:
    linear = data.draw(linears())
    adapter: TuckaAdapter = data.draw(tucka_adapters(linear))
    routes = [
        Route(int(linear.rng.integers(adapter.groups)), tuple(linear.rng.random(adapter.experts))) for _ in range(3)
    ]
    ids = _rows(linear, 4)
    weights = [linear.weight if i == 3 else fold_tucka(adapter, "linear", linear.weight, routes[i]) for i in ids]
    want = _folded(linear, weights)
    plan = GraphSettings("conditioned", routes=[(route,) for route in routes])
    feeds = {"x": linear.x, "task_id": ids}
    _close(adapted(adapter, linear.weight, feeds, plan, before=packing[0], after=packing[1], optimize=optimize), want)
    for route in routes:
        layer, _ = tucka_layer(adapter, linear.weight, routing="batch", route=route)
        with torch.no_grad():
            frozen = layer(torch.from_numpy(linear.x)).numpy()
        _close(frozen, linear.x @ fold_tucka(adapter, "linear", linear.weight, route).T)


@profile
@given(st.data(), st.sampled_from(["batch", "row"]), st.booleans())
def test_tucka_live(data: st.DataObject, routing: str, optimize: bool) -> None:
    linear = data.draw(linears())
    if linear.x.ndim == 2:  # a router sees [batch, length, in]
        linear = Linear(linear.weight, linear.x[:, None], linear.rng)
    adapter: TuckaAdapter = data.draw(tucka_adapters(linear))
    layer, _ = tucka_layer(adapter, linear.weight, routing=routing)
    with torch.no_grad():
        want = layer(torch.from_numpy(linear.x)).numpy()
    plan = GraphSettings("dynamic", routing=routing)  # type: ignore[arg-type]
    _close(adapted(adapter, linear.weight, {"x": linear.x}, plan, optimize=optimize), want)


@profile
@given(st.data(), PACKING, st.booleans())
def test_lora(data: st.DataObject, packing: tuple[int, int], optimize: bool) -> None:
    linear = data.draw(linears())
    adapter = data.draw(lora_adapters(linear))
    tasks = len(adapter.tasks)
    ids = _rows(linear, tasks + 1)
    weights = [linear.weight if i == tasks else LORA.fold(adapter, "linear", linear.weight, int(i)) for i in ids]
    feeds = {"x": linear.x, "task_id": ids}
    plan = GraphSettings("conditioned")
    got = adapted(adapter, linear.weight, feeds, plan, before=packing[0], after=packing[1], optimize=optimize)
    _close(got, _folded(linear, weights))


@pytest.mark.parametrize("length", [None, 4])
def test_flattened_rows_keep_their_own_task(length: int | None) -> None:
    """A graph that flattens [batch, length, in] to [batch * length, in] still gives each row its own task."""
    rng = np.random.default_rng(5)
    linear = Linear(rng.normal(size=(9, 8)), rng.normal(size=(3, 4, 8)), rng)
    from tests.support.examples import ept_example

    adapter = ept_example(linear)
    ids = np.array([1, 0, 2])
    want = _folded(linear, [fold_ept(adapter, "linear", linear.weight, int(i)) for i in ids])
    x = linear.x if length else linear.x.reshape(12, 8)
    got = adapted(adapter, linear.weight, {"x": x, "task_id": ids}, GraphSettings("conditioned"))
    _close(got.reshape(want.shape), want)
