"""Random linears with random adapters, for property tests: what hypothesis draws shapes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from eptx.exporter.methods.lora.adapter import LoraAdapter, LoraModule
from eptx.exporter.methods.tucka.adapter import TuckaAdapter, TuckaModule


@dataclass(frozen=True)
class Linear:
    """A linear with a batch for it; x is [rows, length, in], or [rows, in] when length is None."""

    weight: np.ndarray
    x: np.ndarray
    rng: np.random.Generator

    @property
    def in_features(self) -> int:
        return int(self.weight.shape[1])

    @property
    def out_features(self) -> int:
        return int(self.weight.shape[0])


@st.composite
def linears(draw: st.DrawFn) -> Linear:
    """Odd and even widths, 2-D and 3-D inputs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    inner, outer = draw(st.integers(4, 37)), draw(st.integers(4, 37))
    rows, length = draw(st.integers(1, 5)), draw(st.one_of(st.none(), st.integers(1, 6)))
    shape = (rows, inner) if length is None else (rows, length, inner)
    return Linear(rng.normal(size=(outer, inner)), rng.normal(size=shape), rng)


@st.composite
def ept_adapters(draw: st.DrawFn, linear: Linear) -> EptAdapter:
    """Any sizes from 2 up to the linear's width, repeated or not, and any top-k."""
    rng, inner, outer = linear.rng, linear.in_features, linear.out_features
    sizes = draw(st.lists(st.integers(2, min(inner, outer)), min_size=1, max_size=6))
    rank, tasks = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    module = EptModule(
        a=rng.normal(size=(rank, inner // 2)),
        b=rng.normal(size=(outer // 2, rank)),
        kernels=tuple(rng.normal(size=(outer // s, s)) for s in sizes),
        gate_weight=rng.normal(size=(len(sizes), inner)),
        gate_bias=rng.normal(size=len(sizes)),
        task_embedding=rng.normal(size=(tasks, inner)),
        scale=draw(st.floats(0.1, 8)),
    )
    return EptAdapter(
        tasks=tuple(f"task{i}" for i in range(tasks)),
        heads=None,
        fingerprint="sha256:0",
        modules={"linear": module},
        top_k=draw(st.integers(1, len(sizes))),
    )


@st.composite
def tucka_adapters(draw: st.DrawFn, linear: Linear) -> TuckaAdapter:
    """Any numbers of groups, experts and planes."""
    rng, inner = linear.rng, linear.in_features
    rank, k, t, p = (draw(st.integers(1, 4)) for _ in range(4))
    module = TuckaModule(rng.normal(size=(inner, rank)), rng.normal(size=(k, p, rank, rank)), rng.normal(size=(t, p)))
    return TuckaAdapter(
        tasks=("task0",),
        heads=None,
        fingerprint="sha256:0",
        modules={"linear": module},
        alpha=draw(st.floats(0.1, 64)),
        router="linear",
        centroids=rng.normal(size=(k * t, inner)),
    )


@st.composite
def lora_adapters(draw: st.DrawFn, linear: Linear) -> LoraAdapter:
    """Several tasks of different ranks; not every task adapts the linear."""
    rng, tasks = linear.rng, tuple(f"task{i}" for i in range(draw(st.integers(1, 4))))
    ranks = [draw(st.integers(1, 5)) for _ in tasks]
    absent = draw(st.integers(0, len(tasks) - 1)) if len(tasks) > 1 else -1
    by_task = {
        task: {}
        if index == absent
        else {
            "linear": LoraModule(
                rng.normal(size=(rank, linear.in_features)),
                rng.normal(size=(linear.out_features, rank)),
                0.5 + index,
            )
        }
        for index, (task, rank) in enumerate(zip(tasks, ranks, strict=True))
    }
    return LoraAdapter(tasks=tasks, heads=None, fingerprint="sha256:0", by_task=by_task)
