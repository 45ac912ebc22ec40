"""What hypothesis draws: nodes of every operator, of every shape that a kernel has to cope with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from tests.runtime.kernels.operators import Arrays, Example

#: past the rank block of the kernels, 64, and no multiple of a vector
RANKS = st.one_of(st.integers(1, 9), st.integers(1, 70))
WIDTHS = st.integers(1, 80)
#: Numbers, unlike vectors, all have a cosine of 1 or -1, and which task wins would be a matter of rounding.
INFERRING_WIDTHS = st.integers(2, 80)
Own = Callable[[st.DrawFn, np.random.Generator, int, int], Arrays]


#: Inputs that are a router's own numbers.
ROUTERS = ("task_embedding", "gate_weight", "gate_bias", "gate", "centroids")


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def _stored(draw: st.DrawFn, own: Arrays) -> Arrays:
    """Each float array as float32 or float16, as the exporter stores them one by one; a router's stay float32."""
    may = {n for n, a in own.items() if a.dtype.kind == "f" and n not in ROUTERS}
    return {n: a.astype(np.float16) if n in may and draw(st.booleans()) else a for n, a in own.items()}


@st.composite
def _layouts(draw: st.DrawFn) -> tuple[int, tuple[int, ...]]:
    """How many rows, and the shape of a batch but for its features: [N], [N, L], [N * L] or [N, L, M]."""
    rows, length = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 3, 7, 8, 9, 17]))
    return rows, draw(st.sampled_from([(rows,), (rows, 1), (rows, length), (rows * length,), (rows, length, 2)]))


def _node(
    draw: st.DrawFn, operator: str, own: Own, rng: np.random.Generator, leading: Sequence[int], inner: int
) -> Example:
    """A node of one module or of several, separate or packed, with biases or without, but for its route."""
    count, packed = draw(st.integers(1, 4)), draw(st.booleans())
    widths = draw(st.lists(WIDTHS, min_size=count, max_size=count))
    modules = [_stored(draw, own(draw, rng, inner, width)) for width in widths]
    x = {"x": _normal(rng, *leading, inner)}
    biased = draw(st.booleans())

    def of(y: Sequence[np.ndarray], columns: np.ndarray | None = None) -> Example:
        biases = [next(iter(_stored(draw, {"bias": _normal(rng, base.shape[-1])}).values())) for base in y if biased]
        return Example(operator, y, x, modules, columns, biases=biases)

    if not packed:
        return of([_normal(rng, *leading, width) for width in widths])
    gaps = draw(st.lists(st.integers(0, 3), min_size=count + 1, max_size=count + 1))
    bounds, at = [], 0
    for gap, width in zip(gaps, widths, strict=False):
        bounds += [at + gap, at + gap + width]
        at = bounds[-1]
    return of([_normal(rng, *leading, at + gaps[-1])], np.array(bounds))


@st.composite
def pyramids(draw: st.DrawFn, layout: tuple[int, tuple[int, ...]] | None = None) -> Example:
    """Kernel sizes 1 to 40; equal ones, experts without weight, and tasks that use none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, leading = layout or draw(_layouts())
    tasks, top_k = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    inner = draw(WIDTHS)

    def own(draw: st.DrawFn, rng: np.random.Generator, inner: int, width: int) -> Arrays:
        factors = _factors(draw, rng, inner, width, top_k)
        experts = np.stack([rng.permutation(len(factors["sizes"]))[:top_k] for _ in range(tasks)])
        weights = rng.random((tasks, top_k), np.float32) * (rng.random((tasks, 1)) < 0.8)
        return {"experts": experts, "weights": weights.astype(np.float32), **factors}

    example = _node(draw, "PyramidDelta", own, rng, leading, inner)
    example.shared["route"] = rng.integers(0, tasks, rows)
    return replace(example, attributes={"in_features": inner})


@st.composite
def routed_pyramids(draw: st.DrawFn, layout: tuple[int, tuple[int, ...]] | None = None) -> Example:
    """Tasks that are told, inferred (-1, by each module for itself), and past the last one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, leading = layout or draw(_layouts())
    top_k, inner = draw(st.integers(1, 4)), draw(INFERRING_WIDTHS)
    tasks = draw(st.integers(1, 5))

    def own(draw: st.DrawFn, rng: np.random.Generator, inner: int, width: int) -> Arrays:
        factors = _factors(draw, rng, inner, width, top_k)
        return {**_gate(draw, rng, inner, tasks, draw(st.integers(top_k, len(factors["sizes"])))), **factors}

    example = _node(draw, "RoutedPyramidDelta", own, rng, leading, inner)
    example.shared["task_id"] = rng.integers(draw(st.sampled_from([-1, 0])), tasks + 2, rows)
    return replace(example, attributes={"in_features": inner, "top_k": top_k})


def _factors(draw: st.DrawFn, rng: np.random.Generator, inner: int, width: int, top_k: int) -> Arrays:
    sizes = draw(st.lists(st.one_of(st.integers(1, 5), st.integers(1, 40)), min_size=top_k, max_size=8))
    smallest, rank = min(sizes), draw(RANKS)
    kernels = _normal(rng, len(sizes), width)
    for kernel, size in zip(kernels, sizes, strict=True):
        kernel[width // size * size :] = 0
    return {
        "a": _normal(rng, draw(st.integers(max(1, inner // smallest), max(1, inner))), rank),
        "b": _normal(rng, rank, draw(st.integers(max(1, width // smallest), max(1, width)))),
        "kernels": kernels,
        "sizes": np.array(sizes),
    }


def _gate(draw: st.DrawFn, rng: np.random.Generator, inner: int, tasks: int, experts: int) -> Arrays:
    gate = _normal(rng, experts, inner) / np.float32(inner**0.5)  # softmax of large numbers is 1, 0, 0, ...
    return {"task_embedding": _normal(rng, tasks, inner), "gate_weight": gate, "gate_bias": _normal(rng, experts)}


@st.composite
def low_ranks(draw: st.DrawFn, layout: tuple[int, tuple[int, ...]] | None = None) -> Example:
    """Any number of tasks; routes past the last one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, leading = layout or draw(_layouts())
    tasks = draw(st.integers(1, 9))

    def own(draw: st.DrawFn, rng: np.random.Generator, inner: int, width: int) -> Arrays:
        rank = draw(RANKS)
        return {"a": _normal(rng, tasks, inner, rank), "b": _normal(rng, tasks, rank, width)}

    example = _node(draw, "LowRankDelta", own, rng, leading, draw(WIDTHS))
    example.shared["route"] = rng.integers(0, tasks + 2, rows)
    return example


@st.composite
def tuckers(draw: st.DrawFn, layout: tuple[int, tuple[int, ...]] | None = None) -> Example:
    """A route for the batch, or one for each row."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, leading = layout or draw(_layouts())
    groups, experts, planes = (draw(st.integers(1, 4)) for _ in range(3))

    def own(draw: st.DrawFn, rng: np.random.Generator, inner: int, width: int) -> Arrays:
        rank = draw(RANKS)
        g = _normal(rng, groups, planes, rank, rank)
        c = _normal(rng, experts, planes)
        return {"u": _normal(rng, inner, rank), "g": g, "c": c, "p": _normal(rng, rank, width)}

    example = _node(draw, "TuckerDelta", own, rng, leading, draw(WIDTHS))
    routes = draw(st.sampled_from([1, rows]))
    example.shared["group"] = rng.integers(0, groups, routes)
    example.shared["weights"] = rng.random((routes, experts), np.float32)
    return example


def _experts(draw: st.DrawFn) -> Own:
    """The factors of any number of experts, which share the first factor or have one each."""
    count, each = draw(st.integers(1, 5)), draw(st.booleans())

    def own(draw: st.DrawFn, rng: np.random.Generator, inner: int, width: int) -> Arrays:
        rank = draw(RANKS)
        gate = _normal(rng, count, inner) / np.float32(inner**0.5)  # softmax of large numbers is 1, 0, 0, ...
        a, b = _normal(rng, inner, rank * (count if each else 1)), _normal(rng, count, rank, width)
        return {"gate": gate, "a": a, "b": b}

    return own


@st.composite
def token_mixtures(draw: st.DrawFn, layout: tuple[int, tuple[int, ...]] | None = None) -> Example:
    """One expert and several, each with a factor of its own or all with one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    _, leading = layout or draw(_layouts())
    return _node(draw, "TokenMixtureDelta", _experts(draw), rng, leading, draw(WIDTHS))


@st.composite
def pooled_mixtures(draw: st.DrawFn, layout: tuple[int, tuple[int, ...]] | None = None) -> Example:
    """A mean over the batch, or over each row, with masks of every type; also rows of which nothing counts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, leading = layout or draw(_layouts())
    count = draw(st.integers(1, 5))

    def own(draw: st.DrawFn, rng: np.random.Generator, inner: int, width: int) -> Arrays:
        rank = draw(RANKS)
        gate, a = _normal(rng, count, rank) / np.float32(rank**0.5), _normal(rng, inner, rank)
        return {"gate": gate, "a": a / np.float32(inner**0.5), "b": _normal(rng, count, rank, width)}

    example = _node(draw, "PooledMixtureDelta", own, rng, leading, draw(WIDTHS))
    tokens = int(np.prod(leading))
    by_row = rng.integers(0, 2, (rows, tokens // rows))
    mask = by_row if layout or draw(st.booleans()) else np.ones((1, tokens))
    example.shared["mask"] = mask.astype(draw(st.sampled_from([np.float32, np.int64, np.int32, np.bool_])))
    return example


@dataclass(frozen=True)
class Chosen:
    """MixLoRA's operators for the same tokens."""

    router: Example
    delta: Example
    mean: Example
    sum: Example


@st.composite
def chosen_experts(draw: st.DrawFn, tokens: int | None = None) -> Chosen:
    """Any number of tokens, experts and slots; what is past the last expert is none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    leading = (tokens,) if tokens else draw(st.sampled_from([(1,), (3, 2), (2, 1, 5), (70,), (9, 17)]))
    count, inner, outer = draw(st.integers(1, 9)), draw(WIDTHS), draw(WIDTHS)
    slots, total = draw(st.integers(1, count)), int(np.prod(leading))
    experts = np.stack([rng.permutation(count)[:slots] for _ in range(total)])
    none = rng.random(experts.shape) < draw(st.sampled_from([0, 0.1, 0.9]))
    experts = np.sort(np.where(none, rng.choice([count, count + 1, 2**40], experts.shape), experts), axis=1)
    weights = rng.random((total, slots), np.float32)

    def factors(into: int, out: int) -> list[Arrays]:
        rank = draw(RANKS)
        return [_stored(draw, {"a": _normal(rng, into, count * rank), "b": _normal(rng, count, rank, out)})]

    x, m = _normal(rng, *leading, inner), _normal(rng, *leading, slots, outer)
    gate = _stored(draw, {"gate": _normal(rng, count, inner) / np.float32(inner**0.5)})
    shared = {"m": m, "experts": experts, "weights": weights}
    return Chosen(
        Example("TopExperts", [], {"x": x}, [gate], attributes={"top_k": slots}),
        Example(
            "ChosenExpertsDelta", [_normal(rng, *leading, outer)], {"x": x, "experts": experts}, factors(inner, outer)
        ),
        Example("ChosenExpertsMean", [], {"m": m, "weights": weights}, [{}]),
        Example("ChosenExpertsSum", [_normal(rng, *leading, inner)], shared, factors(outer, inner)),
    )


@st.composite
def pyramid_routers(draw: st.DrawFn) -> Example:
    """Tasks that are told, inferred (-1), and past the last one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, leading = draw(_layouts())
    tasks, inner, top_k = draw(st.integers(1, 6)), draw(INFERRING_WIDTHS), draw(st.integers(1, 4))
    gate = _stored(draw, _gate(draw, rng, inner, tasks, draw(st.integers(top_k, 8))))
    ids = rng.integers(draw(st.sampled_from([-1, 0])), tasks + 2, rows)
    shared = {"task_id": ids, "x": _normal(rng, *leading, inner)}
    return Example("PyramidRouter", [], shared, [gate], attributes={"top_k": top_k})


@st.composite
def tucker_routers(draw: st.DrawFn) -> Example:
    """A mask over the batch, or one for each row, of every type that a model's mask has."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, length, inner = draw(st.integers(1, 6)), draw(st.integers(1, 20)), draw(WIDTHS)
    groups, experts = draw(st.integers(1, 5)), draw(st.integers(2, 4))
    by_row = rng.integers(0, 2, (rows, length))  # also rows of which nothing counts
    mask = by_row if draw(st.booleans()) else np.ones((1, rows * length))
    kind = draw(st.sampled_from([np.float32, np.int64, np.int32, np.bool_]))
    own = _stored(draw, {"centroids": _normal(rng, groups * experts, inner)})
    shared = {"x": _normal(rng, rows, length, inner), "mask": mask.astype(kind)}
    return Example("TuckerRouter", [], shared, [own], attributes={"groups": groups})


DELTAS = {
    "PyramidDelta": pyramids,
    "RoutedPyramidDelta": routed_pyramids,
    "LowRankDelta": low_ranks,
    "TuckerDelta": tuckers,
    "TokenMixtureDelta": token_mixtures,
    "PooledMixtureDelta": pooled_mixtures,
}
