"""Rounds the reference like the export's own type: its weights are rounded, and it computes in float32.

A decoder in float16 also computes in float16, so its modules' outputs are rounded too. For a quantized bundle the
reference has the bundle's own weights already; only the adapter is rounded. In every type, products get the rounding
of one long sum (`accumulation`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from eptx.bundle import Manifest
from eptx.exporter.trained import Host, Trained
from eptx.exporter.validation.reference.accumulation import add_accumulation_noise
from eptx.manifest.names import FLOAT_PRECISIONS

#: fp16 storage leaves smaller tensors in float32.
_SMALLEST = 256


def adapter_dtype(manifest: Manifest) -> str:
    """The type in which the adapter's weights are stored: "fp32" or "fp16"."""
    return "fp32" if manifest.precision == "fp32" else "fp16"


def round_as_stored(trained: Trained, manifest: Manifest) -> None:
    """Rounds a float32 model like the bundle: parameters, also the adapter's and its heads', and products.

    Args:
        trained: changed in place.
        manifest: of the bundle.
    """
    if manifest.precision != "fp32":
        for host in trained.hosts:
            _round_host(host, manifest)
        if manifest.precision in FLOAT_PRECISIONS and trained.heads is not None:
            _round(trained.heads.named_parameters(), (), all_of_them=False)
    for model in (*(host.model for host in trained.hosts), trained.heads):
        if model is not None:
            add_accumulation_noise(model)


def _round_host(host: Host, manifest: Manifest) -> None:
    adapted, quantized = _inside(host), manifest.precision not in FLOAT_PRECISIONS
    parameters = host.model.named_parameters()
    if quantized:
        parameters = ((n, p) for n, p in parameters if ".base_layer." not in n and n.startswith(adapted))
    _round(parameters, host.method.router_parts, all_of_them=quantized)
    if any(output.dtype == "float16" for output in manifest.outputs):
        _compute_in_half(host)


def _round(parameters: Iterable[tuple[str, nn.Parameter]], routers: tuple[str, ...], *, all_of_them: bool) -> None:
    """Rounds parameters to float16, but not routers, and small ones only if `all_of_them`."""
    with torch.no_grad():
        for name, parameter in parameters:
            if (all_of_them or parameter.numel() >= _SMALLEST) and not any(part in name for part in routers):
                parameter.copy_(parameter.half().float())


def _compute_in_half(host: Host) -> None:
    """Rounds every module's output to float16, except inside adapted layers, which compute in float32."""
    adapted = _inside(host)
    for name, module in host.model.named_modules():
        if name and not name.startswith(adapted) and not isinstance(module, nn.ModuleList):
            module.register_forward_hook(_halved, prepend=True)


def _inside(host: Host) -> tuple[str, ...]:
    """The prefixes of the names of everything inside an adapted layer."""
    return tuple(f"{name}." for name in host.names.values())


def _halved(module: nn.Module, args: Any, output: Any) -> Any:
    def halved(value: Any) -> Any:
        return value.half().to(value.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(halved, output)) if type(output) is tuple else halved(output)
