"""What the kernels refuse: in one line that names the operator and what is wrong, and without touching other memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.runtime.kernels.operators import Example, graph, library, run, session


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    library()


RNG = np.random.default_rng(0)


def _normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def _pyramid() -> dict[str, np.ndarray]:
    experts, sizes = np.array([[0, 1], [2, 1], [0, 2]]), np.array([2, 3, 4])
    weights, kernels = RNG.random((3, 2), np.float32), _normal(3, 6)
    kernels[2, 4:] = 0  # of size 4: one group
    return {"experts": experts, "weights": weights, "a": _normal(4, 2), "b": _normal(2, 3)} | {
        "kernels": kernels,
        "sizes": sizes,
    }


def _gate() -> dict[str, np.ndarray]:
    return {"task_embedding": _normal(3, 8), "gate_weight": _normal(4, 8), "gate_bias": _normal(4)}


def _routed() -> dict[str, np.ndarray]:
    gate = {"task_embedding": _normal(3, 8), "gate_weight": _normal(3, 8), "gate_bias": _normal(3)}
    return gate | {name: array for name, array in _pyramid().items() if name not in ("experts", "weights")}


def _tucker() -> dict[str, np.ndarray]:
    return {"u": _normal(8, 3), "g": _normal(2, 2, 3, 3), "c": _normal(4, 2), "p": _normal(3, 6)}


X, Y = _normal(2, 5, 8), _normal(2, 5, 6)
ROUTED = {"x": X, "route": np.array([0, 1])}
PAIR = [{"a": _normal(3, 8, 2), "b": _normal(3, 2, width)} for width in (6, 4)]
PYRAMID = Example("PyramidDelta", [Y], ROUTED, [_pyramid()], attributes={"in_features": 8})
LOW_RANK = Example("LowRankDelta", [Y], ROUTED, PAIR[:1])
GROUPED = Example("LowRankDelta", [Y, _normal(2, 5, 4)], ROUTED, PAIR)
PACKED = Example("LowRankDelta", [_normal(2, 5, 12)], ROUTED, PAIR, np.array([1, 7, 7, 11]))
TUCKER = Example("TuckerDelta", [Y], {"x": X, "group": np.array([0, 1]), "weights": _normal(2, 4)}, [_tucker()])
ROUTER = Example("PyramidRouter", [], {"task_id": np.array([0, -1]), "x": X}, [_gate()], attributes={"top_k": 2})
GROUPS = {"x": X, "mask": np.ones((2, 5), np.int64)}
TUCKER_ROUTER = Example("TuckerRouter", [], GROUPS, [{"centroids": _normal(6, 8)}], attributes={"groups": 3})
IDS = {"x": X, "task_id": np.array([0, -1])}
ROUTED_PYRAMID = Example("RoutedPyramidDelta", [Y], IDS, [_routed()], attributes={"in_features": 8, "top_k": 2})
BIASED = replace(LOW_RANK, biases=[_normal(6)])
BIASED_GROUPED = replace(GROUPED, biases=[_normal(6), _normal(4).astype(np.float16)])
BIASED_PACKED = replace(PACKED, biases=[_normal(12)])
SOUND = [PYRAMID, ROUTED_PYRAMID, LOW_RANK, GROUPED, PACKED, BIASED, BIASED_GROUPED, BIASED_PACKED, TUCKER, ROUTER]
MIXED = {"gate": _normal(3, 8), "a": _normal(8, 2), "b": _normal(3, 2, 6)}
TOKENS = Example("TokenMixtureDelta", [Y], {"x": X}, [MIXED])
POOLED = Example("PooledMixtureDelta", [Y], GROUPS, [{**MIXED, "gate": _normal(3, 2)}])
TOP = Example("TopExperts", [], {"x": X}, [{"gate": _normal(4, 8)}], attributes={"top_k": 2})
EXPERTS = np.tile([1, 3], (10, 1))
SHARES, SLOTS = RNG.random((10, 2), np.float32), _normal(2, 5, 2, 8)
FACTORS = {"a": _normal(8, 12), "b": _normal(4, 3, 6)}
CHOSEN = Example("ChosenExpertsDelta", [Y], {"x": X, "experts": EXPERTS}, [FACTORS])
MEAN = Example("ChosenExpertsMean", [], {"m": SLOTS, "weights": SHARES}, [{}])
SUM = Example("ChosenExpertsSum", [Y], {"m": SLOTS, "experts": EXPERTS, "weights": SHARES}, [FACTORS])
SOUND += [TUCKER_ROUTER, TOKENS, POOLED, TOP, CHOSEN, MEAN, SUM]

INT = np.int32
LARGE = 2**62
#: name -> node, the inputs (or attributes) that are changed, what the error says
CASES: dict[str, tuple[Example, dict[str, Any], str]] = {
    "x without features": (LOW_RANK, {"x": _normal(2, 5, 0)}, "x has no features"),
    "a scalar x": (LOW_RANK, {"x": np.float32(1)}, "x has 1 tokens for 2 rows"),
    "x of nine dimensions": (LOW_RANK, {"x": _normal(*[1] * 8, 8)}, "a tensor of 9 dimensions"),
    "no rows": (LOW_RANK, {"x": X[:0], "y_0": Y[:0], "route": ROUTED["route"][:0]}, "x has 0 tokens for 0 rows"),
    "rows that do not divide the tokens": (LOW_RANK, {"route": np.zeros(3, int)}, "x has 10 tokens for 3 rows"),
    "y of other tokens": (LOW_RANK, {"y_0": _normal(2, 4, 6)}, "y has 48 numbers for 10 tokens of x"),
    "y of half the tokens": (LOW_RANK, {"y_0": _normal(5, 6)}, "y has 30 numbers for 10 tokens of x"),
    "y of tokens, x of none": (LOW_RANK, {"x": X[:, :0]}, "y has 60 numbers for 0 tokens of x"),
    "y too wide": (LOW_RANK, {"y_0": _normal(2, 5, 7)}, "y has 7 features; the adapter has 6"),
    "one y of several too wide": (GROUPED, {"y_1": _normal(2, 5, 6)}, "y has 6 features; the adapter has 4"),
    "a route of two dimensions": (LOW_RANK, {"route": np.zeros((1, 2), int)}, "route has 2 dimensions, not 1"),
    "a route of another type": (LOW_RANK, {"route": np.zeros(2, INT)}, "route has element type 6, not 7"),
    "a negative route": (LOW_RANK, {"route": np.array([0, -1])}, "route -1"),
    "a of two dimensions": (LOW_RANK, {"a_0": _normal(8, 2)}, "a has 2 dimensions, not 3"),
    "a of doubles": (LOW_RANK, {"a_0": np.zeros((3, 8, 2))}, "a has element type 11, not 1"),
    "b of integers": (LOW_RANK, {"b_0": np.zeros((3, 2, 6), INT)}, "b has element type 6, not 1"),
    "b of other tasks": (LOW_RANK, {"b_0": _normal(4, 2, 6)}, "a and b do not fit each other"),
    "b of another rank": (LOW_RANK, {"b_0": _normal(3, 3, 6)}, "a and b do not fit each other"),
    "a of other features": (LOW_RANK, {"a_0": _normal(3, 9, 2)}, "x has 8 features; a has 9"),
    "a mixture's gate of other experts": (TOKENS, {"gate_0": _normal(4, 8)}, "gate does not fit a and b"),
    "a mixture's gate of other features": (TOKENS, {"gate_0": _normal(3, 9)}, "gate does not fit a and b"),
    "a gate of features, not ranks": (POOLED, {"gate_0": _normal(3, 8)}, "gate does not fit a and b"),
    "factors of some experts": (TOKENS, {"a_0": _normal(8, 4)}, "a and b do not fit each other"),
    "a factor of no expert": (TOKENS, {"a_0": _normal(8, 1)}, "a and b do not fit each other"),
    "a factor of another rank": (POOLED, {"a_0": _normal(8, 6)}, "a and b do not fit each other"),
    "experts of other features": (TOKENS, {"a_0": _normal(9, 2), "gate_0": _normal(3, 9)}, "x has 8 features; a has 9"),
    "a mean of other features": (POOLED, {"a_0": _normal(9, 2)}, "x has 8 features; a has 9"),
    "a mean of other positions": (POOLED, {"mask": np.ones((2, 4))}, "x has 80 numbers for a mask of 2 x 4"),
    "a mean of other rows": (POOLED, {"mask": np.ones((3, 5))}, "x has 10 tokens for 3 rows"),
    "a mean by doubles": (POOLED, {"mask": np.ones((2, 5))}, "mask has element type 11"),
    "more than all experts of a token": (TOP, {"top_k": 5}, "the 5 best of 4 experts"),
    "no expert of a token": (TOP, {"top_k": 0}, "the 0 best of 4 experts"),
    "a token's gate of other features": (TOP, {"gate_0": _normal(4, 9)}, "x has 8 features; the gate has 9"),
    "a negative chosen expert": (CHOSEN, {"experts": np.tile([1, -4], (10, 1))}, "expert -4"),
    "a negative expert of the sum": (SUM, {"experts": np.full((10, 2), -1)}, "expert -1"),
    "experts of other tokens": (CHOSEN, {"experts": EXPERTS[:9]}, "x and y do not have the 9 tokens of the experts"),
    "chosen factors of other experts": (CHOSEN, {"a_0": _normal(8, 9)}, "a and b do not fit each other"),
    "chosen factors of other features": (CHOSEN, {"a_0": _normal(9, 12)}, "x has 8 features; a has 9"),
    "chosen factors of another width": (CHOSEN, {"b_0": _normal(4, 3, 7)}, "y has 6 features; the adapter has 7"),
    "slots of other tokens": (SUM, {"m": SLOTS[:1]}, "m and y do not have the 10 tokens of the experts"),
    "slots of other features": (SUM, {"a_0": _normal(9, 12)}, "m has 8 features; a has 9"),
    "shares of other slots": (SUM, {"weights": SHARES[:, :1]}, "weights and experts differ in shape"),
    "a mean of other slots": (MEAN, {"weights": SHARES[:, :1]}, "m does not have the 1 slots of the weights"),
    "a mean of fewer tokens": (MEAN, {"weights": SHARES[:9]}, "m does not have the 9 tokens of the weights"),
    "a mean without slots": (MEAN, {"m": _normal(8)}, "m does not have the 2 slots of the weights"),
    "too few columns": (PACKED, {"columns": np.array([1, 7])}, "columns has 2 entries for 2 modules"),
    "columns that overlap": (PACKED, {"columns": np.array([1, 7, 6, 10])}, "columns are not ascending ranges"),
    "columns that fall": (PACKED, {"columns": np.array([7, 1, 7, 11])}, "columns are not ascending ranges"),
    "columns before y": (PACKED, {"columns": np.array([-1, 5, 7, 11])}, "columns are not ascending ranges"),
    "columns past y": (PACKED, {"columns": np.array([1, 7, 9, 13])}, "ascending ranges of the 12 features of y"),
    "columns out of range": (PACKED, {"columns": np.array([1, 7, -LARGE, LARGE])}, "columns are not ascending ranges"),
    "columns of another width": (PACKED, {"columns": np.array([1, 8, 8, 12])}, "columns has 7 features; the adapter"),
    "experts of one dimension": (PYRAMID, {"experts_0": np.zeros(3, int)}, "experts has 1 dimensions, not 2"),
    "experts of another type": (PYRAMID, {"experts_0": np.zeros((3, 2), INT)}, "experts has element type 6, not 7"),
    "an expert past the last": (PYRAMID, {"experts_0": np.array([[0, 1], [2, 3], [0, 0]])}, "expert 3 of 3"),
    "a negative expert": (PYRAMID, {"experts_0": np.array([[0, 1], [2, -1], [0, 0]])}, "expert -1 of 3"),
    "weights of other tasks": (PYRAMID, {"weights_0": _normal(4, 2)}, "weights and experts differ in shape"),
    "too many experts of a task": (
        PYRAMID,
        {"experts_0": np.zeros((3, 33), int), "weights_0": _normal(3, 33)},
        "33 experts for a task; at most 32",
    ),
    "a and b of other ranks": (PYRAMID, {"b_0": _normal(3, 3)}, "a has rank 2, b has 3"),
    "sizes of other experts": (PYRAMID, {"sizes_0": np.array([2, 3])}, "sizes has 2 entries"),
    "sizes of another type": (PYRAMID, {"sizes_0": np.array([2, 3, 4], INT)}, "sizes has element type 6, not 7"),
    "a size of nothing": (PYRAMID, {"sizes_0": np.array([2, 0, 4])}, "a kernel of size 0"),
    "a negative size": (PYRAMID, {"sizes_0": np.array([2, -LARGE, 4])}, f"a kernel of size {-LARGE}"),
    "a window past a": (PYRAMID, {"sizes_0": np.array([2, 1, 4])}, "a has 4 features; a window reads more"),
    "groups past b": (PYRAMID, {"b_0": _normal(2, 2)}, "b has 2 columns; an expert reads more"),
    "a pyramid's route past the last": (PYRAMID, {"route": np.array([0, 3])}, "route 3 of 3"),
    "a pyramid's negative route": (PYRAMID, {"route": np.array([0, -1])}, "route -1 of 3"),
    "other features than are said": (PYRAMID, {"in_features": 7}, "x has 8 features, not 7"),
    "features out of range": (PYRAMID, {"in_features": -1}, "a has 4 features; a window reads more"),
    "kernels of another width": (
        PYRAMID,
        {"kernels_0": np.zeros((3, 7), np.float32)},
        "y has 6 features; the adapter has 7",
    ),
    "a task's experts without kernels": (
        ROUTED_PYRAMID,
        {"gate_weight_0": _normal(4, 8), "gate_bias_0": _normal(4)},
        "the gate has more experts than there are kernels",
    ),
    "a routed gate of other features": (ROUTED_PYRAMID, {"gate_weight_0": _normal(3, 9)}, "the gate does not fit"),
    "a routed bias of other experts": (ROUTED_PYRAMID, {"gate_bias_0": _normal(2)}, "the gate does not fit"),
    "embeddings of other features": (
        ROUTED_PYRAMID,
        {"task_embedding_0": _normal(3, 9), "gate_weight_0": _normal(3, 9)},
        "x has 8 features; the task embeddings have 9",
    ),
    "routed x of other features": (ROUTED_PYRAMID, {"x": _normal(2, 5, 9)}, "x has 9 features, not 8"),
    "a routed window past a": (ROUTED_PYRAMID, {"sizes_0": np.array([2, 1, 4])}, "a window reads more"),
    "more than all routed experts": (ROUTED_PYRAMID, {"top_k": 4}, "the 4 best of 3 experts for 3 tasks"),
    "no routed experts": (ROUTED_PYRAMID, {"top_k": -1}, "the 0 best of 3 experts for 3 tasks"),
    "too many routed experts": (ROUTED_PYRAMID, {"top_k": LARGE}, f"{LARGE} experts for a task; at most 32"),
    "no routed tasks": (ROUTED_PYRAMID, {"task_embedding_0": _normal(0, 8)}, "dimension 0 of task_embedding is 0"),
    "routed ids of two dimensions": (ROUTED_PYRAMID, {"task_id": np.zeros((2, 1), int)}, "task_id has 2 dimensions"),
    "routed ids of another type": (ROUTED_PYRAMID, {"task_id": np.zeros(2, INT)}, "task_id has element type 6, not 7"),
    "no routed rows": (ROUTED_PYRAMID, {"task_id": np.zeros(0, int)}, "x has 10 tokens for 0 rows"),
    "routed rows that do not divide": (ROUTED_PYRAMID, {"task_id": np.zeros(3, int)}, "x has 10 tokens for 3 rows"),
    "routed rows without tokens": (ROUTED_PYRAMID, {"x": X[:, :0], "y_0": Y[:, :0]}, "x is empty"),
    "a bias too wide": (BIASED, {"bias_0": _normal(7)}, "bias has 7 numbers for 6 features"),
    "a bias of one number": (BIASED, {"bias_0": _normal(1)}, "bias has 1 numbers for 6 features"),
    "a scalar bias": (BIASED, {"bias_0": np.float32(1)}, "bias has 1 numbers for 6 features"),
    "a bias of two dimensions": (BIASED, {"bias_0": _normal(1, 6)}, "bias has 2 dimensions, not 1"),
    "a bias of integers": (BIASED, {"bias_0": np.zeros(6, INT)}, "bias has element type 6, not 1"),
    "a bias of another module": (BIASED_GROUPED, {"bias_1": _normal(6)}, "bias has 6 numbers for 4 features"),
    "a bias of one packed module": (BIASED_PACKED, {"bias_0": _normal(6)}, "bias has 6 numbers for 12 features"),
    "biased columns past y": (BIASED_PACKED, {"columns": np.array([1, 7, 9, 13])}, "columns are not ascending ranges"),
    "u, g and p of other ranks": (TUCKER, {"p_0": _normal(4, 6)}, "u, g and p differ in rank"),
    "g that is not square": (TUCKER, {"g_0": _normal(2, 2, 3, 4)}, "u, g and p differ in rank"),
    "g of three dimensions": (TUCKER, {"g_0": _normal(2, 3, 3)}, "g has 3 dimensions, not 4"),
    "c of other planes": (TUCKER, {"c_0": _normal(4, 3)}, "c and g differ in planes"),
    "u of other features": (TUCKER, {"u_0": _normal(9, 3)}, "x has 8 features; u has 9"),
    "weights of other experts": (TUCKER, {"weights": _normal(2, 3)}, "3 weights for 4 experts"),
    "weights of other rows": (TUCKER, {"weights": _normal(3, 4)}, "group and weights differ in rows"),
    "a group past the last": (TUCKER, {"group": np.array([0, 2])}, "group 2 of 2"),
    "a negative group": (TUCKER, {"group": np.array([-1, 0])}, "group -1 of 2"),
    "a gate of other features": (ROUTER, {"gate_weight_0": _normal(4, 9)}, "the gate does not fit the task embeddings"),
    "a bias of other experts": (ROUTER, {"gate_bias_0": _normal(3)}, "the gate does not fit the task embeddings"),
    "more than all experts": (ROUTER, {"top_k": 5}, "the 5 best of 4 experts for 3 tasks"),
    "no experts": (ROUTER, {"top_k": -1}, "the 0 best of 4 experts for 3 tasks"),
    "no tasks": (ROUTER, {"task_embedding_0": _normal(0, 8)}, "dimension 0 of task_embedding is 0"),
    "no rows to route": (ROUTER, {"task_id": np.zeros(0, int), "x": X[:0]}, "x has 0 numbers for 0 rows"),
    "rows that do not divide": (ROUTER, {"task_id": np.zeros(3, int)}, "x has 80 numbers for 3 rows"),
    "ids of two dimensions": (ROUTER, {"task_id": np.zeros((2, 1), int)}, "task_id has 2 dimensions, not 1"),
    "x of other features": (ROUTER, {"x": _normal(2, 5, 9)}, "x has 9 features; the task embeddings have 8"),
    "a mask of other positions": (TUCKER_ROUTER, {"mask": np.ones((2, 4))}, "x has 80 numbers for a mask of 2 x 4"),
    "a mask of doubles": (TUCKER_ROUTER, {"mask": np.ones((2, 5))}, "mask has element type 11"),
    "a mask of one dimension": (TUCKER_ROUTER, {"mask": np.ones(10, int)}, "mask has 1 dimensions, not 2"),
    "centroids of other features": (TUCKER_ROUTER, {"centroids_0": _normal(6, 7)}, "the centroids have 7"),
    "centroids no multiple": (TUCKER_ROUTER, {"groups": 4}, "6 centroids for 4 groups"),
    "no groups": (TUCKER_ROUTER, {"groups": 0}, "6 centroids for 0 groups"),
    "groups out of range": (TUCKER_ROUTER, {"groups": -1}, "6 centroids for"),
    "x of no positions": (TUCKER_ROUTER, {"x": X[:, :0], "mask": np.ones((2, 0))}, "x has 0 numbers for a mask"),
    "a longer than x": (PYRAMID, {"a_0": _normal(9, 2)}, "a has 9 features; x has 8"),
    "a kernel past its groups": (PYRAMID, {"kernels_0": np.ones((3, 6), np.float32)}, "the kernel of expert 2 goes on"),
    "columns of two dimensions": (PACKED, {"columns": np.array([[1, 7], [7, 11]])}, "columns has 2 dimensions, not 1"),
}


def changed(example: Example, changes: Mapping[str, Any]) -> Example:
    """An example with other inputs or attributes; names are those of `Example.arrays`."""
    arrays = {**example.arrays, **{name: np.asarray(value) for name, value in changes.items()}}
    return replace(
        example,
        y=[arrays[f"y_{i}"] for i in range(len(example.y))],
        biases=[arrays[f"bias_{i}"] for i in range(len(example.biases))],
        shared={name: arrays[name] for name in example.shared},
        own=[{name: arrays[f"{name}_{i}"] for name in own} for i, own in enumerate(example.own)],
        columns=arrays.get("columns"),
        attributes={name: changes.get(name, value) for name, value in example.attributes.items()},
    )


@pytest.mark.parametrize("constants", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, constants: bool) -> None:
    """As weights of the model, where most errors are found when the session opens, and as inputs."""
    sound, changes, said = CASES[name]
    example = changed(sound, changes)
    with pytest.raises(Exception) as e:  # ONNX Runtime has no base class of exceptions
        run(graph(example, constants=constants), example.arrays, kernels=True)
    message = str(e.value)
    assert "\n" not in message
    assert re.search(rf"\b{example.name}: .*{re.escape(said)}", message), message


@pytest.mark.parametrize("example", SOUND, ids=lambda example: example.name)
def test_sound(example: Example) -> None:
    """The examples themselves are not refused, so it is the change that is."""
    assert all(np.isfinite(array).all() for array in run(graph(example), example.arrays, kernels=True))


@pytest.mark.parametrize("operator", ["LowRankDelta", "PyramidDelta", "TuckerDelta", "TokenMixtureDelta"])
def test_rows_without_tokens(operator: str) -> None:
    example = next(sound for sound in SOUND if sound.name == operator)
    empty = changed(example, {"x": X[:, :0], "y_0": Y[:, :0]})
    (got,) = run(graph(empty), empty.arrays, kernels=True)
    assert got.shape == (2, 0, 6)


@pytest.mark.parametrize(
    "name",
    [
        *("a_0", "b_0", "bias_0", "weights_0", "kernels_0", "u_0", "g_0", "c_0", "p_0", "weights", "gate_weight_0"),
        "gate_0",
    ],
)
def test_nan_is_passed_on(name: str) -> None:
    for example in (PYRAMID, ROUTED_PYRAMID, BIASED, TUCKER, TOKENS, POOLED):
        if name in example.arrays:
            array = example.arrays[name]  # zeros stay: a kernel ends with its last group
            broken = changed(example, {name: np.where(array == 0, array, np.array(np.nan, array.dtype))})
            got, *_ = run(graph(broken), broken.arrays, kernels=True)
            assert got.shape == Y.shape
            assert np.isnan(got).any()


@pytest.mark.parametrize("name", ["task_embedding_0", "gate_weight_0", "gate_bias_0", "x", "centroids_0"])
def test_routes_of_nan_are_in_range(name: str) -> None:
    for example in (ROUTER, TUCKER_ROUTER):
        for value in (np.nan, np.inf, -np.inf):
            if name in example.arrays:
                broken = changed(example, {name: np.full_like(example.arrays[name], value)})
                for constants in (True, False):
                    chosen = run(graph(broken, constants=constants), broken.arrays, kernels=True)[0]
                    assert ((chosen >= 0) & (chosen < 4)).all()


def test_routes_of_any_id() -> None:
    ids = np.array([-(2**63), 2**63 - 1])
    example = changed(ROUTER, {"task_id": ids})
    _, weights, _ = run(graph(example), example.arrays, kernels=True)
    assert (weights[0] > 0).all()
    assert not weights[1].any()
    example = changed(ROUTED_PYRAMID, {"task_id": ids})
    got, similarity = run(graph(example), example.arrays, kernels=True)
    assert (got[0] != Y[0]).any()
    np.testing.assert_array_equal(got[1], Y[1])
    assert similarity.all()
    example = changed(LOW_RANK, {"route": np.array([2**63 - 1, 0])})
    (got,) = run(graph(example), example.arrays, kernels=True)
    np.testing.assert_array_equal(got[0], Y[0])


@pytest.mark.parametrize(
    ("example", "name", "dtype"),
    [
        (LOW_RANK, "x", np.float64),
        (PACKED, "columns", np.int32),
        (ROUTER, "task_id", np.int32),
        (TUCKER_ROUTER, "x", np.float16),
    ],
)
def test_other_types_are_refused_by_the_signature(example: Example, name: str, dtype: type) -> None:
    """When the session opens, so that eptx.Session can fall back."""
    other = changed(example, {name: example.arrays[name].astype(dtype)})
    with pytest.raises(Exception, match=f"Type 'tensor.*{example.name}") as e:
        session(graph(other), kernels=True)
    assert "\n" not in str(e.value)
