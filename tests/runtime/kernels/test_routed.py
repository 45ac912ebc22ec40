"""RoutedPyramidDelta is PyramidRouter and PyramidDelta in one, to the bit, and every module infers for itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.kernels.examples import routed_pyramids
from tests.runtime.kernels.operators import Arrays, Example, graph, library, run

profile = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
MODULES, TASKS, ROWS = 3, 4, 9


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    library()


@profile
@given(routed_pyramids(), st.booleans())
def test_both_in_one(example: Example, constants: bool) -> None:
    got = run(graph(example, constants=constants), example.arrays, kernels=True)
    apart = example.apart(kernels=True)
    want = run(graph(apart, constants=constants), apart.arrays, kernels=True)
    for a, b in zip(got, want, strict=False):  # the similarities follow
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_modules_infer_different_tasks(packed: bool) -> None:
    """Row i resembles task i + m in module m: each module infers its own."""
    rng = np.random.default_rng(4)
    towards = rng.normal(size=(TASKS, 16)).astype(np.float32)
    x = rng.normal(size=(ROWS, 3, 16)).astype(np.float32)
    x[:, 0] = towards[np.arange(ROWS) % TASKS] + x[:, 0] / 100
    ids = np.where(np.arange(ROWS) % 3 == 1, np.arange(ROWS) % (TASKS + 1), -1)  # told ones, and the base, between
    widths, modules = (12, 7, 9), []
    for index, width in enumerate(widths):
        own: Arrays = {
            "task_embedding": np.roll(towards, index, axis=0),
            "gate_weight": rng.normal(size=(5, 16)).astype(np.float32),
            "gate_bias": rng.normal(size=5).astype(np.float32),
            "a": rng.normal(size=(8, 4)).astype(np.float32),
            "b": rng.normal(size=(4, width // 2)).astype(np.float32),
            "kernels": rng.normal(size=(5, width)).astype(np.float32),
            "sizes": np.array([2, 3, 3, 4, 5]),
        }
        for kernel, size in zip(own["kernels"], own["sizes"], strict=True):
            kernel[width // size * size :] = 0  # a kernel ends with its last group
        modules.append(own)
    y = [rng.normal(size=(ROWS, 3, width)).astype(np.float32) for width in widths]
    bounds = np.array([0, 12, 12, 19, 19, 28]) if packed else None
    bases = [np.concatenate(y, axis=-1)] if packed else y
    attributes = {"in_features": 16, "top_k": 2}
    group = Example("RoutedPyramidDelta", bases, {"x": x, "task_id": ids}, modules, bounds, attributes=attributes)
    got = run(graph(group), group.arrays, kernels=True)
    adapted = np.split(got[0], [12, 19], axis=-1) if packed else got[:MODULES]
    similarities = got[len(bases) :]
    for index, (own, base) in enumerate(zip(modules, y, strict=True)):
        inferred = (np.arange(ROWS) + index) % TASKS
        np.testing.assert_array_equal(similarities[index].argmax(axis=1), inferred)
        shared = {"x": x, "task_id": np.where(ids < 0, inferred, ids)}
        told = Example("RoutedPyramidDelta", [base], shared, [own], attributes=attributes)
        alone, nothing = run(graph(told), told.arrays, kernels=True)
        assert not nothing.any()
        assert adapted[index].tobytes() == alone.tobytes()
        off = ids == TASKS
        assert off.any()
        assert adapted[index][off].tobytes() == base[off].tobytes()
