"""The export's own type: what its weights are rounded to before everything is computed in float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from eptx.bundle import Manifest
from eptx.exporter.adapter import Adapter
from eptx.exporter.reference import ReferenceModel

#: fp16 storage leaves smaller tensors in float32.
_SMALLEST = 256
_ROUTERS = ("lora_gate", "lora_task_embedding", "tucka_ec")


def as_stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array as the bundle holds it ("fp32" or "fp16"), float32."""
    if dtype == "fp16" and array.size >= _SMALLEST:
        return array.astype(np.float16).astype(np.float32)
    return array.astype(np.float32)


def router_dtype(manifest: Manifest) -> str:
    """What the routers are computed from: the stored type where the graph holds them, else they were folded exactly."""
    return manifest.precision if manifest.mode == "dynamic" else "fp32"


def round_weights(reference: ReferenceModel, manifest: Manifest) -> None:
    """Rounds the parameters of a float32 reference to what the bundle holds, the adapter's and its heads' included."""
    dtype = manifest.precision
    if dtype == "fp32":
        return
    exact = _ROUTERS if router_dtype(manifest) == "fp32" else ()
    with torch.no_grad():
        for name, parameter in reference.model.named_parameters():
            if parameter.numel() >= _SMALLEST and not any(part in name for part in exact):
                parameter.copy_(parameter.half().float())
    reference.adapter = _with_stored_heads(reference.adapter, dtype)


def _with_stored_heads(adapter: Adapter, dtype: str) -> Adapter:
    if adapter.heads is None:
        return adapter
    weights = {task: as_stored(array, dtype) for task, array in adapter.heads.weights.items()}
    return replace(adapter, heads=replace(adapter.heads, weights=weights))
