"""The operators need nothing but ONNX: the checker accepts them, and ONNX's own reference evaluator computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest

from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.graph.settings import GraphSettings
from tests.support.examples import ept_example, hydra_example, lily_example, lora_example, tucka_example
from tests.support.linear_graph import attached, run
from tests.support.strategies import Linear

RNG = np.random.default_rng(11)
LINEAR = Linear(RNG.normal(size=(9, 8)), RNG.normal(size=(4, 3, 8)), RNG)
ROUTES = [(Route(1, (0.3, 0.6)),)]
CASES: dict[str, tuple[Adapter, GraphSettings, list[int]]] = {
    "PyramidDelta": (ept_example(LINEAR), GraphSettings("conditioned"), [0, 2, 1, 3]),
    "RoutedPyramidDelta": (ept_example(LINEAR), GraphSettings("dynamic"), [0, -1, 2, 3]),
    "TuckerDelta": (
        tucka_example(LINEAR),
        GraphSettings("conditioned", routes=ROUTES),
        [0, 1, 0, 0],
    ),
    "TuckerRouter": (tucka_example(LINEAR), GraphSettings("dynamic", routing="row"), []),
    "TokenMixtureDelta": (hydra_example(LINEAR), GraphSettings("dynamic"), []),
    "PooledMixtureDelta": (lily_example(LINEAR), GraphSettings("dynamic", routing="row"), []),
    "LowRankDelta": (lora_example(LINEAR), GraphSettings("conditioned"), [1, 0, 2, 1]),
}


@pytest.mark.parametrize("operator", CASES)
@pytest.mark.parametrize("opset", [18, 21])
def test_reference_evaluator(operator: str, opset: int) -> None:
    adapter, plan, ids = CASES[operator]
    model = attached(adapter, LINEAR.weight, LINEAR.x.shape, plan, opset=opset)
    assert any(node.op_type == operator for node in model.graph)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    feeds = {"x": LINEAR.x} | ({"task_id": np.array(ids)} if ids else {})
    with np.errstate(all="ignore"):
        got = onnx.reference.ReferenceEvaluator(proto).run(None, feeds)[0]
    np.testing.assert_allclose(got, run(model, feeds), rtol=0, atol=1e-10)
    assert np.abs(got - LINEAR.x @ LINEAR.weight.T).max() > 0.1


def _softmax(scores: np.ndarray) -> np.ndarray:
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(shares / shares.sum(-1, keepdims=True))


@pytest.mark.parametrize("operator", ["TokenMixtureDelta", "PooledMixtureDelta"])
def test_mixtures_by_numpy(operator: str) -> None:
    """The formulas of the papers: experts weighed by each token, or by the mean of a row."""
    adapter, plan, _ = CASES[operator]
    module: Any = adapter.modules["linear"]  # type: ignore[attr-defined]
    found = run(attached(adapter, LINEAR.weight, LINEAR.x.shape, plan), {"x": LINEAR.x})
    x, wanted = LINEAR.x, LINEAR.x @ LINEAR.weight.T
    if operator == "TokenMixtureDelta":
        p = _softmax(x @ module.route.T)
        wanted = wanted + 1.5 * sum(p[..., i, None] * (x @ module.a[0].T @ module.b[i].T) for i in range(3))
    else:
        hidden = x @ module.a.T
        w = _softmax(hidden @ module.router.T).mean(1)
        wanted = wanted + 1.5 * np.einsum("nlr,ne,ero->nlo", hidden, w, module.b)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)
