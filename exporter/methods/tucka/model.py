"""The PEFT tuner of Tucker Adaptation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from eptx.exporter.bases.names import in_encoder
from eptx.exporter.methods.peft_types import register
from eptx.exporter.methods.tucka.config import TuckaConfig
from eptx.exporter.methods.tucka.layer import (
    RouterReachedError,
    TuckaLayer,
    TuckaLinear,
    TuckaRoute,
    TuckaState,
)
from eptx.exporter.methods.tuner import EptxTuner


class TuckaModel(EptxTuner):
    """Puts :class:`TuckaLinear` in place of the targeted linear layers (``get_peft_model`` calls it).

    A module that runs before the router (ViT computes key and value before query) cannot take the route that
    the last forward left behind: the router's input is then found by a second, partial forward with the
        adapter off.
    """

    prefix: str = "tucka_"
    tuner_layer_cls = TuckaLayer

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        self.state = TuckaState(len(config.tasks), config.routing)

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, TuckaLinear):
            raise ValueError("a model takes one TuckA adapter: its layers share one route")
        if not isinstance(target, nn.Linear):
            raise TypeError(f"TuckA adapts torch.nn.Linear only, and {current_key} is a {type(target).__name__}")
        if not peft_config.router_name:
            peft_config.router_name = current_key
        is_router = current_key == _plain(peft_config.router_name)
        new = TuckaLinear(target, adapter_name, current_key, self.state, peft_config, is_router=is_router)
        self._replace_module(parent, target_name, new, target)

    def _post_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        super()._post_injection_hook(model, config, adapter_name)
        self.router  # noqa: B018 - raises here rather than in the first forward

    @property
    def router(self) -> TuckaLinear:
        """The layer that routes."""
        for module in self.model.modules():
            if isinstance(module, TuckaLinear) and len(module.tucka_ec):
                return module
        config: Any = next(iter(self.peft_config.values()))
        name = config.router_name
        raise ValueError(f"router_name {name!r} is not one of the adapted modules")

    def set_route(self, group: int | None, weights: Sequence[float] = ()) -> None:
        """Use one route for everything instead of the router's; None returns to the router."""
        if group is None:
            self.state.forced = None
            return
        g = self.router.tucka_g[self.router.active_adapters[0]]
        self.state.forced = TuckaRoute(
            torch.tensor([group], device=g.device),
            torch.tensor([list(weights)], dtype=g.dtype, device=g.device),
            torch.full((1,), torch.inf, dtype=g.dtype, device=g.device),
        )

    @contextmanager
    def _probing(self) -> Iterator[None]:
        """Adapters off, and the forward inside ends where the router sees its input."""
        self.state.probing = True
        try:
            yield
        except RouterReachedError:
            pass
        finally:
            self.state.probing = False

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = self.state
        if state.probing:
            return
        state.fresh, state.probed, state.taken, state.calls = False, None, [], 0
        mask = call_arguments(model, args, kwargs).get(self._mask_name(model))
        state.mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None

        def probe() -> None:
            with self._probing():
                model(*args, **kwargs)
            router = self.router
            if state.probed is None:
                raise ValueError(f"router {router.module} does not run in this forward")
            state.route = router.compute_route(state.probed, router.active_adapters[0])
            state.fresh = True

        state.run_probe = probe

    def _mask_name(self, model: nn.Module) -> str:
        """Which argument masks what the router reads."""
        config: Any = getattr(model, "config", None)
        reads_answer = getattr(config, "is_encoder_decoder", False) and not in_encoder(self.router.module)
        return "decoder_attention_mask" if reads_answer else "attention_mask"

    def _end(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self.state.probing:
            self.state.fresh, self.state.run_probe, self.state.probed, self.state.mask = (
                False,
                None,
                None,
                None,
            )


def call_arguments(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a forward call by name."""
    if not args:
        return dict(kwargs)
    return dict(inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments)


def _plain(name: str) -> str:
    """A module's name inside the wrapped model: without PEFT's prefix, as the released code may save it."""
    return re.sub(r"^base_model\.model\.", "", name)


register("tucka", TuckaConfig, TuckaModel)
