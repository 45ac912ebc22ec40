"""Fixed small adapters, for tests that need no search."""

from __future__ import annotations

from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from eptx.exporter.methods.hydra_lora.adapter import HydraLoraAdapter, HydraLoraModule
from eptx.exporter.methods.lily.adapter import LilyAdapter, LilyModule
from eptx.exporter.methods.lora.adapter import LoraAdapter, LoraModule
from eptx.exporter.methods.tucka.adapter import TuckaAdapter, TuckaModule
from tests.support.strategies import Linear


def ept_example(linear: Linear) -> EptAdapter:
    """Three tasks, four experts of three sizes, top 2."""
    rng, inner, outer = linear.rng, linear.in_features, linear.out_features
    sizes = (2, 3, 3, 4)
    module = EptModule(
        a=rng.normal(size=(2, inner // 2)),
        b=rng.normal(size=(outer // 2, 2)),
        kernels=tuple(rng.normal(size=(outer // s, s)) for s in sizes),
        gate_weight=rng.normal(size=(4, inner)),
        gate_bias=rng.normal(size=4),
        task_embedding=rng.normal(size=(3, inner)),
        scale=1.5,
    )
    return EptAdapter(tasks=("a", "b", "c"), heads=None, fingerprint="sha256:0", modules={"linear": module}, top_k=2)


def tucka_example(linear: Linear) -> TuckaAdapter:
    """Two groups of two experts, two planes."""
    rng, inner = linear.rng, linear.in_features
    module = TuckaModule(rng.normal(size=(inner, 3)), rng.normal(size=(2, 2, 3, 3)), rng.normal(size=(2, 2)))
    return TuckaAdapter(
        tasks=("a",),
        heads=None,
        fingerprint="sha256:0",
        modules={"linear": module},
        alpha=16,
        router="linear",
        centroids=rng.normal(size=(4, inner)),
    )


def lora_example(linear: Linear) -> LoraAdapter:
    """Two tasks of ranks 1 and 3."""
    rng, inner, outer = linear.rng, linear.in_features, linear.out_features
    by_task = {
        task: {"linear": LoraModule(rng.normal(size=(rank, inner)), rng.normal(size=(outer, rank)), 0.5)}
        for task, rank in (("a", 1), ("b", 3))
    }
    return LoraAdapter(tasks=("a", "b"), heads=None, fingerprint="sha256:0", by_task=by_task)


def hydra_example(linear: Linear) -> HydraLoraAdapter:
    """Three experts behind one A."""
    rng, inner, outer = linear.rng, linear.in_features, linear.out_features
    module = HydraLoraModule(
        rng.normal(size=(3, inner)), rng.normal(size=(1, 2, inner)), rng.normal(size=(3, outer, 2)), 1.5
    )
    return HydraLoraAdapter(tasks=("a",), heads=None, fingerprint="sha256:0", modules={"linear": module})


def lily_example(linear: Linear) -> LilyAdapter:
    """Three B."""
    rng, inner, outer = linear.rng, linear.in_features, linear.out_features
    module = LilyModule(rng.normal(size=(2, inner)), rng.normal(size=(3, 2, outer)), rng.normal(size=(3, 2)), 1.5)
    return LilyAdapter(tasks=("a",), heads=None, fingerprint="sha256:0", modules={"linear": module})
