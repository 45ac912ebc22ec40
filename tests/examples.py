"""Fixed small adapters, for tests that need no search."""

from __future__ import annotations

from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from tests.strategies import Linear


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
