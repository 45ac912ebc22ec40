"""A linear layer with Tucker Adaptation (arXiv 2511.06859), computed as the released code computes it.

One module is the router: at every call it turns its own input into a route, and the modules of the same forward that
run later use the newest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from eptx.exporter.methods.tucka.config import TuckaConfig
from eptx.exporter.methods.tuner import TaskRows


@dataclass(frozen=True)
class TuckaRoute:
    """What the router decided: one route for the batch (n = 1) or one per row (n = batch).

    Attributes:
        group: chosen group, int64 ``[n]``.
        weights: weights of its experts, ``[n, t]``.
        margin: largest affinity less the largest outside the chosen group, ``[n]``; infinite with one group.
        affinity: of every group's experts, ``[n, k, t]``: their weights if that group were chosen. None for a route
            that was given.
    """

    group: Tensor
    weights: Tensor
    margin: Tensor
    affinity: Tensor | None = None


class RouterReachedError(Exception):
    """Ends a probing forward once the router has seen its input. Never leaves the tuner."""


class TuckaState(TaskRows):
    """The route of the running forward, and how to come by it.

    Attributes:
        routing: ``batch`` or ``row``.
        forced: a route to use for everything instead of the router's, or None.
        frozen: for each call of the router in a forward the route that it gives, or None where it routes; empty: it
            always routes.
        calls: how often the router was called in the running forward.
        route: the newest route.
        fresh: whether ``route`` belongs to the forward that is running now.
        taken: the routes of the router's calls, in order.
        used: the route that a layer has used last.
        probe: the router's input while it is wanted before the router has run, else None.
        mask: ``[batch, positions]`` of the running forward, or None; only ``row`` routing reads it.
    """

    def __init__(self, num_tasks: int, routing: str) -> None:
        super().__init__(num_tasks)
        self.routing = routing
        self.forced: TuckaRoute | None = None
        self.frozen: tuple[TuckaRoute | None, ...] = ()
        self.calls = 0
        self.route: TuckaRoute | None = None
        self.fresh = False
        self.taken: list[TuckaRoute] = []
        self.used: TuckaRoute | None = None
        self.probing = False
        self.probed: Tensor | None = None
        self.mask: Tensor | None = None
        self.run_probe: Callable[[], None] | None = None

    @property
    def per_row(self) -> bool:
        """Whether what the layers compute of an input that all rows share differs from row to row."""
        routes = any(route is not None and len(route.group) > 1 for route in (self.forced, *self.frozen))
        return routes or self.routing == "row" or super().per_row

    def call(self) -> TuckaRoute | None:
        """The frozen route of the router's next call, None where it routes; the call counts as made."""
        self.calls += 1
        if not self.frozen:
            return None
        if self.calls > len(self.frozen):
            raise ValueError(f"the router is called more than {len(self.frozen)} times, which have frozen routes")
        return self.frozen[self.calls - 1]

    def take(self, route: TuckaRoute) -> None:
        """From now on layers use this route."""
        self.route, self.fresh = route, True
        self.taken = [*self.taken, route]


class TuckaLayer(BaseTunerLayer):
    """Weights of TuckA on one linear layer, with the names of the released checkpoints."""

    adapter_layer_names: tuple[str, ...] = ("tucka_u", "tucka_g", "tucka_c", "tucka_ec")
    other_param_names: tuple[str, ...] = ("alpha", "settings")
    training: bool  # of nn.Module

    def __init__(self, base_layer: nn.Linear, module: str, state: TuckaState) -> None:
        self.base_layer = base_layer
        self.module = module
        self.state = state
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.alpha: dict[str, float] = {}
        self.settings: dict[str, TuckaConfig] = {}
        self.tucka_u: Any = nn.ParameterDict()
        self.tucka_g: Any = nn.ParameterDict()
        self.tucka_c: Any = nn.ParameterDict()
        self.tucka_ec: Any = nn.ParameterDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def update_layer(self, adapter_name: str, config: TuckaConfig, *, is_router: bool) -> None:
        """Add the weights of one adapter; the router's centroids only where ``is_router``."""
        r, k, t, p = config.r, config.k, config.t, config.p
        self.alpha[adapter_name] = config.alpha
        self.settings[adapter_name] = config
        self.tucka_u[adapter_name] = nn.Parameter(torch.empty(self.in_features, r))
        self.tucka_g[adapter_name] = nn.Parameter(torch.empty(k, p, r, r))
        self.tucka_c[adapter_name] = nn.Parameter(torch.empty(t, p))
        if is_router:
            self.tucka_ec[adapter_name] = nn.Parameter(torch.empty(k * t, self.in_features))
        if config.init_weights:
            self._initialize(adapter_name)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def _initialize(self, name: str) -> None:
        """As released: all groups start from one random core; the centroids wait for data."""
        core = torch.empty_like(self.tucka_g[name][0, 0])
        nn.init.kaiming_uniform_(core, a=math.sqrt(5))
        with torch.no_grad():
            self.tucka_g[name].copy_(core.expand_as(self.tucka_g[name]))
        for factor in (self.tucka_u[name], self.tucka_c[name]):
            nn.init.kaiming_uniform_(factor, mode="fan_out", a=math.sqrt(5))
        if name in self.tucka_ec:
            nn.init.kaiming_uniform_(self.tucka_ec[name], a=math.sqrt(5))

    def compute_route(self, x: Tensor, name: str) -> TuckaRoute:
        """The route for the router's input ``x`` ``[batch, ..., in]``."""
        rows = self.state.as_rows(x)
        if self.training and not self.settings[name].router_initialized:
            self._set_centroids(rows.detach().mean((0, 1)), name)
        k, t = self.tucka_g[name].shape[0], self.tucka_c[name].shape[0]
        mean = self._row_mean(rows) if self.state.routing == "row" else rows.mean((0, 1)).unsqueeze(0)
        logits = (mean @ self.tucka_ec[name].to(mean.dtype).t()).reshape(-1, k, t)
        affinity = (logits / logits.norm(dim=2, keepdim=True)).sigmoid()
        best = affinity.amax(2)
        group = best.argmax(1)
        weights = affinity[torch.arange(len(group), device=group.device), group]
        others = best.scatter(1, group.unsqueeze(1), -torch.inf).amax(1)
        return TuckaRoute(group, weights, best.amax(1) - others, affinity)

    @torch.no_grad()
    def _set_centroids(self, mean: Tensor, name: str) -> None:
        """Set the centroids from the first batch of the training, as released: its mean, and noise around it.

        All processes of a distributed training take the centroids of the first, as they do its other weights.
        """
        config, centroids = self.settings[name], self.tucka_ec[name]
        noise = torch.rand_like(centroids) * 2 - 1
        noise[0] = 0
        centroids.copy_(mean + config.ec_perturb_scale * noise)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(centroids, 0)
        config.router_initialized = True

    def _row_mean(self, rows: Tensor) -> Tensor:
        """Mean over each row's unpadded positions; over all where the mask is not of these positions."""
        mask = self.state.mask
        if mask is None or tuple(mask.shape) != tuple(rows.shape[:2]):
            return rows.mean(1)
        kept = mask.to(rows.dtype).unsqueeze(2)
        return (rows * kept).sum(1) / kept.sum(1).clamp_min(1)


class TuckaLinear(nn.Module, TuckaLayer):
    """``nn.Linear`` on the TuckA-transformed input."""

    def __init__(
        self,
        base_layer: nn.Linear,
        adapter_name: str,
        module: str,
        state: TuckaState,
        config: TuckaConfig,
        *,
        is_router: bool,
    ) -> None:
        super().__init__()
        TuckaLayer.__init__(self, base_layer, module, state)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, is_router=is_router)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Centroids from a file stay: PEFT loads a checkpoint into a new adapter, whose settings it does not read."""
        for name, config in self.settings.items():
            if f"{prefix}tucka_ec.{name}" in state_dict:
                config.router_initialized = True
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``[..., in]`` to ``[..., out]`` by the route of the running forward."""
        if not self.disable_adapters:
            for name in self.active_adapters:
                if name in self.tucka_u:
                    x = self._adapted_input(x, name)
        result: Tensor = self.base_layer(x, *args, **kwargs)
        return result

    def _adapted_input(self, x: Tensor, name: str) -> Tensor:
        """``x + alpha · ((x Û) M) Û^T``, with rows of task ``base`` left alone."""
        state = self.state
        if state.probing:
            if name in self.tucka_ec:
                state.probed = x
                raise RouterReachedError
            return x
        state.used = route = self._route(x, name)
        dtype = self.tucka_u[name].dtype
        rows = state.as_rows(x).to(dtype)
        u = self.tucka_u[name] / self.tucka_u[name].norm()
        c = self.tucka_c[name] / self.tucka_c[name].norm()
        g = self.tucka_g[name][route.group]
        g = g / g.flatten(1).norm(dim=1)[:, None, None, None]
        experts = torch.einsum("tp,nprs->ntrs", c, g)
        mixed = torch.einsum("nt,ntrs->nrs", route.weights.to(dtype), experts)
        delta = self.alpha[name] * (rows @ u @ mixed @ u.t())
        if state.ids is not None:
            delta = delta.masked_fill((state.ids.to(x.device) == state.num_tasks)[:, None, None], 0)
        adapted: Tensor = x + state.as_output(delta, x).to(x.dtype)
        return adapted

    def _route(self, x: Tensor, name: str) -> TuckaRoute:
        """The newest route of the running forward: forced, or that of the router's last call, frozen or its own.

        The released router routes at every call. DeBERTa-v2 with ``share_att_key`` calls its first layer's query
        projection again for the relative positions, so two routes serve one forward there.
        """
        state = self.state
        if state.forced is not None:
            return state.forced
        if name in self.tucka_ec:
            if state.probed is not None and not self.training and not torch.equal(state.probed, x):
                raise ValueError(
                    f"router {self.module} depends on adapted modules that run before it: name an earlier router"
                )
            state.probed = None
            state.take(state.call() or self.compute_route(x, name))
        elif not state.fresh and state.frozen and state.frozen[0] is not None:
            return state.frozen[0]  # of the router's first call, which is still to come
        elif not state.fresh:
            if state.run_probe is None:
                raise ValueError("TuckA's route belongs to a forward of the whole model: call the model, not its parts")
            state.run_probe()
        assert state.route is not None
        return state.route
