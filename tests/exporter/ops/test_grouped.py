"""Modules that read one x are one node, and so are those of a packed product: they compute what each would alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eptx.exporter import ops
from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.graph.settings import GraphSettings
from eptx.manifest.names import OPERATOR_DOMAIN
from tests.support.linear_graph import run_all
from tests.support.several_linears import Several

ROUTES = [(Route(1, (0.3, 0.6)),), (Route(0, (0.9, 0.2)),), (Route(1, (0.5, 0.1)),)]
DELTAS = {"ept": "PyramidDelta", "lora": "LowRankDelta", "tucka": "TuckerDelta"}
TASKS = {"ept": 3, "lora": 2, "tucka": 3}
WIDTHS = st.lists(st.integers(4, 20), min_size=1, max_size=6)


def _nodes(model: ir.Model) -> list[str]:
    return sorted(node.op_type for node in model.graph if node.domain == OPERATOR_DOMAIN)


def _names(operator: str, modules: int, *, packed: bool = False) -> list[str]:
    """The operators of this many modules, four to a node."""
    counts = [min(4, modules - start) for start in range(0, modules, 4)]
    return sorted(f"Packed{operator}{n}" if packed else f"{operator}{n if n > 1 else ''}" for n in counts)


def _plan(method: str, mode: str = "conditioned") -> GraphSettings:
    return GraphSettings(mode, routes=ROUTES if method == "tucka" else ())  # type: ignore[arg-type]


def _choices(method: str, ids: np.ndarray) -> list[Any]:
    tasks: list[Any] = [*([route for (route,) in ROUTES] if method == "tucka" else range(TASKS[method])), None]
    return [tasks[task] for task in ids]


def _close(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> None:
    assert [a.shape for a in got] == [a.shape for a in want]
    for a, b in zip(got, want, strict=True):
        assert np.abs(a - b).max() <= 1e-10 * max(1.0, np.abs(b).max())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), WIDTHS, st.booleans(), st.sampled_from(list(DELTAS)), st.booleans())
def test_groups(data: st.DataObject, widths: list[int], packed: bool, method: str, optimize: bool) -> None:
    gaps = data.draw(st.lists(st.integers(0, 3), min_size=len(widths) + 1, max_size=len(widths) + 1))
    gaps[0] += packed and len(widths) == 1 and not sum(gaps)  # one module alone is not packed
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    several = Several.of(widths, gaps if packed else None, rng)
    adapter = several.adapter(method)
    ids = rng.integers(0, TASKS[method] + 1, size=len(several.x))
    want = several.folded(adapter, _choices(method, ids))
    feeds = {"x": several.x, "task_id": ids}
    model = several.attached(adapter, _plan(method))
    # TuckA updates the input of what is wider than it
    on_input = sum(width > several.x.shape[-1] for width in widths) if method == "tucka" and not packed else 0
    names = [*_names(DELTAS[method], len(widths) - on_input, packed=packed), *_names(DELTAS[method], on_input)]
    assert _nodes(model) == sorted(names)
    _close(run_all(model, feeds, optimize=optimize), want)
    if method == "ept":
        model = several.attached(adapter, _plan(method, "dynamic"))
        assert _nodes(model) == _names("RoutedPyramidDelta", len(widths), packed=packed)
        _close(run_all(model, feeds, optimize=optimize), want)


@pytest.mark.parametrize("gaps", [None, (0, 0, 0, 0), (2, 0, 1, 0)])
def test_some_modules_of_several(gaps: tuple[int, ...] | None) -> None:
    """q and v of a packed qkv."""
    several = Several.of((9, 4, 6), gaps, np.random.default_rng(6))
    adapter: Any = several.adapter("ept")
    del adapter.modules["m1"]
    ids = np.array([2, 3, 0, 1])
    model = several.attached(adapter, _plan("ept"))
    assert _nodes(model) == _names("PyramidDelta", 2, packed=gaps is not None)
    _close(run_all(model, {"x": several.x, "task_id": ids}), several.folded(adapter, _choices("ept", ids)))


@pytest.mark.parametrize("gaps", [None, (0, 2, 0, 1)])
@pytest.mark.parametrize(
    ("method", "plan"),
    [
        ("ept", GraphSettings("conditioned")),
        ("ept", GraphSettings("dynamic")),
        ("lora", GraphSettings("conditioned")),
        ("tucka", GraphSettings("conditioned", routes=ROUTES)),
        ("tucka", GraphSettings("dynamic", routing="row")),
    ],
)
def test_reference_evaluator(method: str, plan: GraphSettings, gaps: tuple[int, ...] | None) -> None:
    several = Several.of((9, 4, 6), gaps, np.random.default_rng(8))
    model = several.attached(several.adapter(method), plan)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    ids = np.array([-1, 0, 2, 1] if plan.mode == "dynamic" else [1, 0, 2, 1])
    feeds = {"x": several.x, "task_id": ids}
    feeds = {value.name: feeds[value.name] for value in proto.graph.input}
    with np.errstate(all="ignore"):
        _close(onnx.reference.ReferenceEvaluator(proto).run(None, feeds), run_all(model, feeds))


@pytest.mark.parametrize("gaps", [None, (1, 0, 2, 0)])
def test_the_inputs_of_each_module_are_found(gaps: tuple[int, ...] | None) -> None:
    several = Several.of((9, 4, 6), gaps, np.random.default_rng(9))
    model = several.attached(several.adapter("ept"), _plan("ept"))
    node = next(node for node in model.graph if node.domain == OPERATOR_DOMAIN)
    for index in range(3):
        operator, inputs = ops.module_inputs(node, index)
        names = {name: value.name if value is not None else None for name, value in inputs.items()}
        assert operator == "PyramidDelta"
        # equal ones are there once; modules of which the tasks use other experts have others
        assert names.pop("sizes") in {f"m{earlier}.kernel_sizes" for earlier in range(index + 1)}
        assert names == {
            "x": "x",
            "route": "task_id",
            "experts": f"m{index}.task_experts",
            "weights": f"m{index}.task_weights",
            "a": f"m{index}.lora_A",
            "b": f"m{index}.lora_B",
            "kernels": f"m{index}.lora_expert_kernels",
        }
