"""The export's own type: what its weights are rounded to before everything is computed in float32.

A decoder in float16 also computes in it: what its modules give is rounded too. Of a quantized bundle, whose weights
the reference takes as they are, the adapter alone is rounded. In every type, products round as in one long chain.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from eptx.bundle import Manifest
from eptx.exporter.precision import QUANTIZED
from eptx.exporter.trained import Host, Trained
from eptx.exporter.validation.reference.accumulation import round_in_chains

#: fp16 storage leaves smaller tensors in float32.
_SMALLEST = 256


def adapter_dtype(manifest: Manifest) -> str:
    """What the adapter's weights are stored in: "fp32" or "fp16"."""
    return "fp32" if manifest.precision == "fp32" else "fp16"


def own_type(manifest: Manifest) -> str:
    """What the bundle's numbers round like: "fp32" or "fp16"; quantized products are summed in float32."""
    return "fp16" if manifest.precision == "fp16" else "fp32"


def round_as_stored(trained: Trained, manifest: Manifest) -> None:
    """Rounds a float32 model as the bundle does: the parameters, the adapter's and its heads' included, and products.

    Args:
        trained: changed in place.
        manifest: of the bundle.
    """
    if manifest.precision != "fp32":
        for host in trained.hosts:
            _round_host(host, manifest)
        if manifest.precision not in QUANTIZED and trained.heads is not None:
            _round(trained.heads.named_parameters(), (), all_of_them=False)
    for model in (*(host.model for host in trained.hosts), trained.heads):
        if model is not None:
            round_in_chains(model)


def _round_host(host: Host, manifest: Manifest) -> None:
    adapted, quantized = _inside(host), manifest.precision in QUANTIZED
    parameters = host.model.named_parameters()
    if quantized:
        parameters = ((n, p) for n, p in parameters if ".base_layer." not in n and n.startswith(adapted))
    _round(parameters, host.method.router_parts, all_of_them=quantized)
    if any(output.dtype == "float16" for output in manifest.outputs):
        _compute_in_half(host)


def _round(parameters: Iterable[tuple[str, nn.Parameter]], routers: tuple[str, ...], *, all_of_them: bool) -> None:
    """To float16, but routers; what is small may be stored with its like, in a tensor that is not."""
    with torch.no_grad():
        for name, parameter in parameters:
            if (all_of_them or parameter.numel() >= _SMALLEST) and not any(part in name for part in routers):
                parameter.copy_(parameter.half().float())


def _compute_in_half(reference: Host) -> None:
    """Has every module give what float16 holds of it, but those inside an adapted layer, which computes in float32."""
    adapted = _inside(reference)
    for name, module in reference.model.named_modules():
        if name and not name.startswith(adapted) and not isinstance(module, nn.ModuleList):
            module.register_forward_hook(_halved, prepend=True)


def _inside(reference: Host) -> tuple[str, ...]:
    """What the names of everything in an adapted layer begin with."""
    return tuple(f"{name}." for name in reference.names.values())


def _halved(module: nn.Module, args: Any, output: Any) -> Any:
    def halved(value: Any) -> Any:
        return value.half().to(value.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(halved, output)) if type(output) is tuple else halved(output)
