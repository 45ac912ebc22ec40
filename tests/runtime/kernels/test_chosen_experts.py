"""MixLoRA's operators: kernels and bodies compute what numpy says, to the bit whatever the threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.kernels.examples import Chosen, chosen_experts
from tests.runtime.kernels.operators import Example, close, graph, library, run

profile = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    library()


def _wide(example: Example, name: str) -> Any:
    return example.arrays[name].astype(np.float64)


def _expected(drawn: Chosen, which: str) -> np.ndarray:
    """By numpy, in float64, token by token."""
    example: Example = getattr(drawn, which)
    if which == "mean":
        m, weights = _wide(example, "m"), _wide(example, "weights")
        slots = m.reshape(*weights.shape, -1)
        return np.asarray(np.einsum("tk,tki->ti", weights, slots).reshape(*m.shape[:-2], m.shape[-1]))
    y, a, b = (_wide(example, name) for name in ("y_0", "a_0", "b_0"))
    experts, (count, rank, out) = example.arrays["experts"], b.shape
    each = a.reshape(len(a), count, rank)
    flat = y.reshape(-1, out)

    def update(v: np.ndarray, e: int) -> np.ndarray:
        return v @ each[:, e] @ b[e] if e < count else np.zeros(out)

    if which == "delta":
        x = _wide(example, "x").reshape(len(flat), -1)
        rows = [[flat[t] + update(x[t], e) for e in experts[t]] for t in range(len(flat))]
        return np.array(rows).reshape(*y.shape[:-1], experts.shape[1], out)
    m, weights = _wide(example, "m").reshape(*experts.shape, -1), _wide(example, "weights")
    for t, own in enumerate(experts):
        flat[t] += sum(weights[t, k] * update(m[t, k], e) for k, e in enumerate(own))
    return flat.reshape(y.shape)


@pytest.mark.parametrize("which", ["delta", "mean", "sum"])
@pytest.mark.parametrize("kernels", [True, False])
@profile
@given(drawn=chosen_experts(), constants=st.booleans(), optimize=st.booleans())
def test_numpy_agrees(which: str, kernels: bool, drawn: Chosen, constants: bool, optimize: bool) -> None:
    example: Example = getattr(drawn, which)
    got = run(graph(example, constants=constants), example.arrays, kernels=kernels, optimize=optimize)
    sizes = run(graph(of := example.magnitudes()), of.arrays, kernels=False)
    close(got, [_expected(drawn, which).astype(np.float32)], sizes)


@pytest.mark.parametrize("kernels", [True, False])
@profile
@given(drawn=chosen_experts())
def test_the_choice(kernels: bool, drawn: Chosen) -> None:
    example = drawn.router
    experts, weights = run(graph(example), example.arrays, kernels=kernels)
    x, gate = _wide(example, "x"), _wide(example, "gate_0")
    scores = np.exp(x.reshape(-1, x.shape[-1]) @ gate.T)
    p = scores / scores.sum(1, keepdims=True)
    slots = example.attributes["top_k"]
    for token, own in enumerate(p):
        wanted = np.argsort(-own, kind="stable")
        if slots < len(own) and own[wanted[slots - 1]] - own[wanted[slots]] < 1e-5:
            continue  # rounding may choose either
        chosen = np.sort(wanted[:slots])
        np.testing.assert_array_equal(experts[token], chosen)
        np.testing.assert_allclose(weights[token], own[chosen] / own[chosen].sum(), atol=1e-5)


@pytest.mark.parametrize("which", ["router", "delta", "mean", "sum"])
@settings(profile, max_examples=15)
@given(drawn=chosen_experts(tokens=900))
def test_threads(which: str, drawn: Chosen) -> None:
    example: Example = getattr(drawn, which)
    one, two = (run(graph(example), example.arrays, kernels=True, threads=threads) for threads in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert a.tobytes() == b.tobytes()
