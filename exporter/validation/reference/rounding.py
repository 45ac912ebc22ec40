"""Rounds the reference like the export's own type: its weights are rounded, and it computes in float32.

A bundle that computes in float16 has a reference that rounds every operation so (`half`). For a quantized bundle the
reference has the bundle's own weights already; only the adapter is rounded. In every type, products get the rounding
of one long sum (`accumulation`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from eptx.bundle import Manifest
from eptx.exporter.trained import Host, Trained
from eptx.exporter.validation.reference.accumulation import add_accumulation_noise
from eptx.manifest.names import FLOAT_PRECISIONS
from eptx.runtime.validation.comparison.signature import may_compute_in_half

#: fp16 storage leaves smaller tensors in float32.
_SMALLEST = 256


def adapter_dtype(manifest: Manifest) -> str:
    """The type in which the adapter's weights are stored: "fp32" or "fp16"."""
    return "fp32" if manifest.precision == "fp32" else "fp16"


def computes_in_half(trained: Trained, manifest: Manifest) -> bool:
    """Whether a bundle computes in float16: fp16 for CUDA, but of classes that transformers keeps in float32 in part.

    A quantized decoder for CUDA does so too, and its outputs are float16. No other bundle may say that its outputs are:
    see `check_signature`.
    """
    if may_compute_in_half(manifest) and any(output.dtype == "float16" for output in manifest.outputs):
        return True
    kept = any(getattr(type(host.model), "_keep_in_fp32_modules", None) for host in trained.hosts)
    return manifest.precision == "fp16" and manifest.provider == "cuda" and not kept


def round_as_stored(trained: Trained, manifest: Manifest) -> None:
    """Rounds a float32 model like the bundle: parameters, also the adapter's and its heads', and products.

    Args:
        trained: changed in place.
        manifest: of the bundle.
    """
    if manifest.precision != "fp32":
        half = computes_in_half(trained, manifest)
        for host in trained.hosts:
            _round_host(host, manifest, all_of_them=half)
        for module in (trained.heads, trained.sentence):
            if manifest.precision in FLOAT_PRECISIONS and module is not None:
                _round(module.named_parameters(), (), all_of_them=half)
    for model in (*(host.model for host in trained.hosts), trained.heads, trained.sentence):
        if model is not None:
            add_accumulation_noise(model)


def _round_host(host: Host, manifest: Manifest, *, all_of_them: bool) -> None:
    adapted, quantized = _inside(host), manifest.precision not in FLOAT_PRECISIONS
    parameters = host.model.named_parameters()
    if quantized:
        parameters = ((n, p) for n, p in parameters if ".base_layer." not in n and n.startswith(adapted))
    _round(parameters, host.method.router_parts, all_of_them=quantized or all_of_them)


def _round(parameters: Iterable[tuple[str, nn.Parameter]], routers: tuple[str, ...], *, all_of_them: bool) -> None:
    """Rounds parameters to float16, but not routers, and small ones only if `all_of_them`."""
    with torch.no_grad():
        for name, parameter in parameters:
            if (all_of_them or parameter.numel() >= _SMALLEST) and not any(part in name for part in routers):
                parameter.copy_(parameter.half().float())


def _inside(host: Host) -> tuple[str, ...]:
    """The prefixes of the names of everything inside an adapted layer."""
    return tuple(f"{name}." for name in host.names.values())
