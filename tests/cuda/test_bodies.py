"""The operators' bodies on CUDA: a kernel for every node, in float32 and float16, and the page's number of nodes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from eptx.exporter.ops.domain import DELTAS
from tests.cuda.placement import Placed, left_to_cpu, placed
from tests.runtime.kernels.operators import FUNCTIONS, GATE, Example, graph

ROWS, LENGTH, INNER, OUT, RANK, EXPERTS, TASKS, TOP_K = 3, 5, 8, 6, 2, 4, 3, 2
#: Operators that only say how a tensor's numbers are to be read: nothing is computed or copied.
VIEWS = ("Reshape", "Squeeze", "Unsqueeze")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "kernels.md"
_RNG = np.random.default_rng(0)


def _floats(*shape: int) -> np.ndarray:
    return _RNG.normal(size=shape).astype(np.float32)


def _ints(high: int, *shape: int) -> np.ndarray:
    return _RNG.integers(0, high, shape)


Y, X = _floats(ROWS, LENGTH, OUT), _floats(ROWS, LENGTH, INNER)
TOKENS, CHOSEN = ROWS * LENGTH, {"experts": _ints(EXPERTS, ROWS * LENGTH, TOP_K)}
M, SHARES = _floats(ROWS, LENGTH, TOP_K, INNER), {"weights": _floats(ROWS * LENGTH, TOP_K)}
PAIRS = {"a": _floats(INNER, EXPERTS * RANK), "b": _floats(EXPERTS, RANK, OUT)}
WINDOWS = {"a": _floats(INNER // 2, RANK), "b": _floats(RANK, OUT // 2)}
WINDOWS |= {"kernels": _floats(EXPERTS, OUT), "sizes": np.full(EXPERTS, 2)}
ROUTER = dict(zip(GATE, (_floats(TASKS, INNER), _floats(EXPERTS, INNER), _floats(EXPERTS)), strict=True))
TABLES = {"experts": _ints(EXPERTS, TASKS + 1, TOP_K), "weights": _floats(TASKS + 1, TOP_K)}
FACTORS = {"a": _floats(TASKS, INNER, RANK), "b": _floats(TASKS, RANK, OUT)}
CORE = {"u": _floats(INNER, RANK), "g": _floats(2, 3, RANK, RANK), "c": _floats(4, 3), "p": _floats(RANK, OUT)}
ROUTE, MASK = _ints(TASKS, ROWS), np.ones((ROWS, LENGTH), np.int64)
GATES = {"gate": _floats(EXPERTS, INNER)}
EXAMPLES = [
    Example("LowRankDelta", [Y], {"x": X, "route": ROUTE}, [FACTORS]),
    Example("PyramidDelta", [Y], {"x": X, "route": ROUTE}, [TABLES | WINDOWS], attributes={"in_features": INNER}),
    Example("PyramidRouter", [], {"task_id": ROUTE, "x": X}, [ROUTER], attributes={"top_k": TOP_K}),
    Example(
        "RoutedPyramidDelta",
        [Y],
        {"x": X, "task_id": ROUTE},
        [ROUTER | WINDOWS],
        attributes={"in_features": INNER, "top_k": TOP_K},
    ),
    Example("TuckerDelta", [Y], {"x": X, "group": _ints(2, ROWS), "weights": _floats(ROWS, 4)}, [CORE]),
    Example("TuckerRouter", [], {"x": X, "mask": MASK}, [{"centroids": _floats(8, INNER)}], attributes={"groups": 2}),
    Example("TokenMixtureDelta", [Y], {"x": X}, [GATES | PAIRS]),
    Example(
        "PooledMixtureDelta",
        [Y],
        {"x": X, "mask": MASK},
        [{"gate": _floats(EXPERTS, RANK), "a": _floats(INNER, RANK), "b": PAIRS["b"]}],
    ),
    Example("TopExperts", [], {"x": X}, [GATES], attributes={"top_k": TOP_K}),
    Example("ChosenExpertsDelta", [Y], {"x": X} | CHOSEN, [PAIRS]),
    Example("ChosenExpertsMean", [], {"m": M} | SHARES, [{}]),
    Example("ChosenExpertsSum", [Y], {"m": M} | CHOSEN | SHARES, [PAIRS]),
]


def _halved(example: Example) -> onnx.ModelProto:
    """The node with activations and factors in float16; what routers read and say of their own stays float32."""

    def half(arrays: dict[str, np.ndarray], kept: tuple[str, ...]) -> dict[str, np.ndarray]:
        return {n: a.astype(np.float16) if a.dtype == np.float32 and n not in kept else a for n, a in arrays.items()}

    kept = ("weights", *GATE, "gate", "centroids")
    own = [half(each, kept) for each in example.own]
    made = replace(example, y=[y.astype(np.float16) for y in example.y], shared=half(example.shared, kept), own=own)
    model = graph(made, opset=18)
    for node in model.graph:  # what is in front of y, and what follows it
        for value in node.outputs:
            adapted = node.op_type == "Neg" or not example.operator.endswith(("Router", "TopExperts"))
            if value.dtype == ir.DataType.FLOAT and adapted and value.index() == 0:
                value.type = ir.TensorType(ir.DataType.FLOAT16)
    return ir.to_proto(model)


def _work(nodes: list[Placed], own: set[str]) -> tuple[int, int, int]:
    """Nodes of a module that compute, those that only view, and those that serve all modules.

    Args:
        nodes: of the body.
        own: what one module alone reads: its activations and its constants.
    """
    of_module, counts = set(own), [0, 0, 0]
    for node in nodes:
        if node.op_type in ("Shape", "Size"):
            continue
        alone = bool(of_module & set(node.reads)) or node.op_type == "If"
        of_module |= set(node.gives) if alone else set()
        if node.kind == "data" and node.op_type != "Neg" and not _does_nothing(node):
            counts[(1 if node.op_type in VIEWS else 0) if alone else 2] += 1
    return counts[0], counts[1], counts[2]


def _casts(nodes: list[Placed]) -> int:
    return sum(node.op_type == "Cast" and node.kind == "data" and not _does_nothing(node) for node in nodes)


def _does_nothing(node: Placed) -> bool:
    """A cast to the type that is there, which ONNX Runtime takes out."""
    return node.op_type == "Cast" and node.inputs == node.outputs


def test_all_operators_are_here() -> None:
    assert {example.operator for example in EXAMPLES} == set(FUNCTIONS) >= set(DELTAS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.operator)
def test_every_node_has_a_kernel(example: Example) -> None:
    for model in (ir.to_proto(graph(example, opset=18)), _halved(example)):
        ort.InferenceSession(model.SerializeToString())  # the types fit
        assert [str(node) for node in left_to_cpu(model)] == []
    halves = [node for node in placed(_halved(example)) if node.op_type == "MatMul" and node.kind == "data"]
    routed = example.operator.endswith("Router") or example.operator == "TopExperts"
    assert routed or any("float16" in node.inputs for node in halves)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.operator)
def test_the_page_says_how_many_nodes(example: Example) -> None:
    pattern = rf"^\| `{example.operator}` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|"
    found = re.search(pattern, PAGE.read_text(), re.MULTILINE)
    nodes, halved = placed(ir.to_proto(graph(example, opset=18))), placed(_halved(example))
    shared = {"route", "task_id", "mask", "group"} | (
        {"experts", "weights"} if example.operator == "TuckerDelta" else set()
    )
    own = {*example.arrays, *(f"negative_{name}" for name in example.arrays)} - shared
    casts = [
        sum(n.op_type == "Cast" and n.kind == "data" and not _does_nothing(n) for n in each) for each in (halved, nodes)
    ]
    counted = (*_work(nodes, own), casts[0] - casts[1])
    assert found is not None and tuple(map(int, found.groups())) == counted, f"{example.operator}: {counted}"
