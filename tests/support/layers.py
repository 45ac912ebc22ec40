"""The PyTorch reference layers around one linear, with an adapter's arrays in them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.methods.ept.adapter import EptAdapter
from eptx.exporter.methods.ept.config import EptConfig
from eptx.exporter.methods.ept.layer import EptLinear, EptState
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.methods.tucka.config import TuckaConfig
from eptx.exporter.methods.tucka.layer import TuckaLinear, TuckaRoute, TuckaState


def _linear(weight: np.ndarray) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    linear.weight.data = torch.from_numpy(weight.copy())
    return linear


def _fill(parameter: nn.Parameter, array: np.ndarray) -> None:
    parameter.data = torch.from_numpy(np.array(array, dtype=np.float64)).reshape(parameter.shape)


def ept_layer(adapter: EptAdapter, weight: np.ndarray) -> tuple[EptLinear, EptState]:
    """An EPT layer in float64, in evaluation mode, and the state that takes its task ids."""
    module = adapter.modules["linear"]
    config = EptConfig(
        r=module.rank,
        lora_alpha=1,
        kernel_sizes=list(module.sizes),
        top_k=adapter.top_k,
        tasks=list(adapter.tasks),
        target_modules=["linear"],
    )
    state = EptState(len(adapter.tasks))
    layer = EptLinear(_linear(weight), "default", "linear", state, config).double().eval()
    layer.scaling["default"] = module.scale
    _fill(layer.lora_A["default"].weight, module.a)
    _fill(layer.lora_B["default"].weight, module.b)
    for parameter, kernel in zip(layer.lora_expert_kernels["default"], module.kernels, strict=True):
        _fill(parameter, kernel)
    _fill(layer.lora_gate["default"][0].weight, module.gate_weight)
    _fill(layer.lora_gate["default"][0].bias, module.gate_bias)
    _fill(layer.lora_task_embedding["default"].weight, module.task_embedding)
    return layer, state


def tucka_layer(
    adapter: TuckaAdapter, weight: np.ndarray, *, routing: str, route: Route | None = None
) -> tuple[TuckaLinear, TuckaState]:
    """A TuckA router layer in float64, in evaluation mode, with its own route or a forced one."""
    module = adapter.modules["linear"]
    k, p, r, _ = module.g.shape
    config = TuckaConfig(r=r, k=k, t=module.c.shape[0], p=p, alpha=adapter.alpha, target_modules=["linear"])
    state = TuckaState(len(adapter.tasks), routing)
    layer = TuckaLinear(_linear(weight), "default", "linear", state, config, is_router=True).double().eval()
    for parameters, array in (
        (layer.tucka_u, module.u),
        (layer.tucka_g, module.g),
        (layer.tucka_c, module.c),
        (layer.tucka_ec, adapter.centroids),
    ):
        _fill(parameters["default"], array)
    if route is not None:
        state.forced = TuckaRoute(
            torch.tensor([route.group]),
            torch.tensor([route.weights], dtype=torch.float64),
            torch.tensor([torch.inf]),
        )
    return layer, state
