"""The trained TuckA model: a PEFT tuner that PEFT fills."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eptx.errors import AdapterError
from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.methods.tucka.config import TuckaConfig
from eptx.exporter.methods.tucka.layer import TuckaRoute
from eptx.exporter.methods.tucka.model import TuckaModel  # noqa: F401 - tells PEFT of it
from eptx.exporter.trained.files import WEIGHTS, AdapterFiles, tasks_by_heads
from eptx.exporter.trained.names import exactly
from eptx.exporter.trained.reference import GivenRoutes, Reference, SavedAs


class TuckaReference(Reference):
    """One adapter of all tasks; the input of one module, the router, decides the route of all."""

    name: ClassVar[str] = "tucka"
    title: ClassVar[str] = "TuckA"
    tensor_part: ClassVar[str] = ".tucka_"
    router_parts: ClassVar[tuple[str, ...]] = ("tucka_ec",)
    routes_by_data: ClassVar[bool] = True

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return config.get("peft_type") == "TUCKA"

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        return tasks_by_heads(files[0], given)

    def modules(self, files: AdapterFiles) -> list[str]:
        return list(files.shapes(".tucka_u"))

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: SavedAs
    ) -> TuckaConfig:
        """What the file says; the router is the module that has the centroids."""
        known = {field.name for field in dataclasses.fields(TuckaConfig)}
        given = {key: value for key, value in files.config.items() if key in known and key != "peft_type"}
        routers = list(files.shapes(".tucka_ec"))
        if len(routers) != 1:
            raise AdapterError(f"{WEIGHTS}: {len(routers)} modules have tucka_ec; one module routes")
        return TuckaConfig(
            **given
            | {
                "target_modules": exactly(list(names.values())),
                "exclude_modules": None,
                "layers_to_transform": None,
                "layers_pattern": None,
                "router_name": names[routers[0]],
                "router_initialized": True,
                "tasks": list(tasks),
                "task_labels": None,  # heads are the reference's own
                "task_head_pooling": None,
                "init_weights": False,
                "inference_mode": True,
                "task_type": saved[0],
                "modules_to_save": saved[1],
            }
        )

    def together(self, task: int, count: int) -> Hashable:
        """Tasks share all but the heads, which are picked per row."""
        return task == count

    def tell(self, state: Any, ids: Tensor, routes: GivenRoutes) -> None:
        state.set(None)
        state.routing = routes.routing
        state.forced = None if routes.route is None else _route(routes.route, routes.dtype)
        state.frozen = tuple(None if each is None else _route(each, routes.dtype) for each in routes.calls)

    def hold(self, state: Any, ids: Tensor) -> None:
        if state.fresh:
            state.forced = state.route

    def is_router(self, layer: Any) -> bool:
        return bool(len(getattr(layer, "tucka_ec", ())))

    def update_by(self, layer: Any, weight: Tensor) -> bool:
        """For a weight that was quantized after the update was made of it.

        The graph computes y = Q x + P (..), with P made of the base's own W; the layer multiplies its updated input x'
        by Q. What is missing is (W - Q)(x' - x), which is added here.
        """
        difference = (weight - layer.base_layer.weight).detach()
        seen: list[Tensor] = []

        def keep(module: nn.Module, args: Any) -> None:
            seen[:] = [args[0]]

        def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            return output + torch.nn.functional.linear(args[0] - seen[0], difference)

        layer.register_forward_pre_hook(keep)
        layer.base_layer.register_forward_hook(add)
        return True


REFERENCE = TuckaReference()


def _route(route: Route | Sequence[Route], dtype: torch.dtype) -> TuckaRoute:
    routes = [route] if isinstance(route, Route) else list(route)
    weights = torch.tensor([each.weights for each in routes], dtype=dtype)
    endless = torch.full((len(routes),), torch.inf, dtype=dtype)
    return TuckaRoute(torch.tensor([each.group for each in routes]), weights, endless)
