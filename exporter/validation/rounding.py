"""The export's own type: what its weights are rounded to before everything is computed in float32.

A decoder in float16 also computes in it: what its modules give is rounded too. Of a quantised bundle, whose weights
the reference takes as they are, the adapter alone is rounded, and what products in blocks give.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eptx.bundle import Manifest
from eptx.exporter.adapter import Adapter
from eptx.exporter.reference import ReferenceModel
from eptx.exporter.validation.chains import round_in_chains

#: Precisions whose products are quantised; the rest of the base is float32 there.
QUANTISED = ("int8", "int8-static", "int4", "mixed")
#: fp16 storage leaves smaller tensors in float32.
_SMALLEST = 256
#: Routers are stored in float32, or folded to tables.
_ROUTERS = ("lora_gate", "lora_task_embedding", "tucka_ec")


def as_stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array as the bundle holds it ("fp32" or "fp16"), float32."""
    if dtype == "fp16" and array.size >= _SMALLEST:
        return array.astype(np.float16).astype(np.float32)
    return array.astype(np.float32)


def adapter_dtype(manifest: Manifest) -> str:
    """What the adapter's weights are stored in: "fp32" or "fp16"."""
    return "fp32" if manifest.precision == "fp32" else "fp16"


def own_type(manifest: Manifest) -> str:
    """What the bundle's numbers round like: "fp32", "fp16" or, where products add up in blocks, "int4"."""
    schemes = manifest.quantisation.products.values() if manifest.quantisation is not None else ()
    if manifest.precision not in QUANTISED:
        return manifest.precision
    return "int4" if manifest.precision == "int4" or any(s.endswith("-blocks") for s in schemes) else "fp32"


def round_as_stored(reference: ReferenceModel, manifest: Manifest, in_blocks: Collection[str] = ()) -> None:
    """Rounds the parameters of a float32 reference to what the bundle holds, the adapter's and its heads' included.

    Args:
        reference: changed in place.
        manifest: of the bundle.
        in_blocks: the linear layers whose products add up in blocks.
    """
    if manifest.precision != "fp32":
        _round_weights(reference, quantised=manifest.precision in QUANTISED)
    if any(output.dtype == "float16" for output in manifest.outputs):
        _compute_in_half(reference)
    round_in_chains(reference.model)


def _round_weights(reference: ReferenceModel, *, quantised: bool) -> None:
    adapted = _inside(reference)
    with torch.no_grad():
        for name, parameter in reference.model.named_parameters():
            if quantised and (".base_layer." in name or not name.startswith(adapted)):
                continue
            # what is small here may be stored with its like, in a tensor that is not
            if (quantised or parameter.numel() >= _SMALLEST) and not any(part in name for part in _ROUTERS):
                parameter.copy_(parameter.half().float())
    if not quantised:
        reference.adapter = _with_stored_heads(reference.adapter, "fp16")


def _compute_in_half(reference: ReferenceModel) -> None:
    """Has every module give what float16 holds of it, but those inside an adapted layer, which computes in float32."""
    adapted = _inside(reference)
    for name, module in reference.model.named_modules():
        if name and not name.startswith(adapted) and not isinstance(module, nn.ModuleList):
            module.register_forward_hook(_halved, prepend=True)


def _inside(reference: ReferenceModel) -> tuple[str, ...]:
    """What the names of everything in an adapted layer begin with."""
    return tuple(f"{name}." for name in reference.names.values())


def _halved(module: nn.Module, args: Any, output: Any) -> Any:
    def halved(value: Any) -> Any:
        return value.half().to(value.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(halved, output)) if type(output) is tuple else halved(output)


def _with_stored_heads(adapter: Adapter, dtype: str) -> Adapter:
    if adapter.heads is None:
        return adapter
    weights = {task: as_stored(array, dtype) for task, array in adapter.heads.weights.items()}
    return replace(adapter, heads=replace(adapter.heads, weights=weights))
