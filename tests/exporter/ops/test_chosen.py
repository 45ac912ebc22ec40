"""MixLoRA's operators in ONNX's own reference evaluator: every expert that is chosen, and none past the last."""

from __future__ import annotations

import numpy as np
import onnx.reference
import onnx_ir as ir
import pytest

from tests.runtime.kernels.operators import Example, graph, run

RNG = np.random.default_rng(4)
COUNT, SLOTS, TOKENS, INNER, RANK, OUT = 3, 2, 5, 6, 2, 4
#: Past the last expert: the next number, twice it, and a large one.
EXPERTS = np.array([[0, 2], [1, 3], [3, 3], [0, 6], [2, 2**40]])
WEIGHTS = np.array([[0.3, 0.7], [0.6, 0.4], [1.0, 0.0], [0.5, 0.5], [0.2, 0.8]], np.float32)
Y, X = RNG.normal(size=(TOKENS, OUT)).astype(np.float32), RNG.normal(size=(TOKENS, INNER)).astype(np.float32)
M = RNG.normal(size=(TOKENS, SLOTS, INNER)).astype(np.float32)
A = RNG.normal(size=(INNER, COUNT * RANK)).astype(np.float32)
B = RNG.normal(size=(COUNT, RANK, OUT)).astype(np.float32)
OWN = {"a": A, "b": B}


def _update(v: np.ndarray, expert: int) -> np.ndarray:
    if expert >= COUNT:
        return np.zeros(OUT, np.float32)
    return np.asarray(v @ A[:, RANK * expert : RANK * (expert + 1)] @ B[expert])


def _delta() -> np.ndarray:
    return np.array([[Y[t] + _update(X[t], e) for e in own] for t, own in enumerate(EXPERTS)])


def _sum() -> np.ndarray:
    pairs = list(enumerate(zip(EXPERTS, WEIGHTS, strict=True)))
    return np.array([Y[t] + sum(w[k] * _update(M[t, k], e) for k, e in enumerate(own)) for t, (own, w) in pairs])


CASES = {
    "delta": (Example("ChosenExpertsDelta", [Y], {"x": X, "experts": EXPERTS}, [OWN]), _delta()),
    "mean": (Example("ChosenExpertsMean", [], {"m": M, "weights": WEIGHTS}, [{}]), np.einsum("tk,tki->ti", WEIGHTS, M)),
    "sum": (Example("ChosenExpertsSum", [Y], {"m": M, "experts": EXPERTS, "weights": WEIGHTS}, [OWN]), _sum()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("opset", [18, 21])
def test_reference_evaluator(name: str, opset: int) -> None:
    example, wanted = CASES[name]
    proto = ir.to_proto(graph(example, opset=opset))
    feeds = {key: array for key, array in example.arrays.items() if key not in example.constants}
    negative = {key: -array if key.startswith("y_") else array for key, array in feeds.items()}  # the graph turns it
    (found,) = onnx.reference.ReferenceEvaluator(proto).run(None, negative)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    (body,) = run(graph(example, opset=opset), example.arrays, kernels=False)
    np.testing.assert_allclose(body, wanted, atol=1e-5)
