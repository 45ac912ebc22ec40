"""The trained Lily model: PEFT's own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import check_target_module_exists
from torch import Tensor, nn

from eptx.exporter.methods.routed_formula import Routers, by_number
from eptx.exporter.trained.files import AdapterFiles, tasks_by_heads
from eptx.exporter.trained.reference import GivenRoutes, Reference, SavedAs, peft_config

_ROUTER = ".lily_router.weight"


class _Routers(Routers):
    """PEFT's routers: what they say, and what they are made to say.

    Attributes:
        routing: "batch", as PEFT has it; "row": PEFT's layers run row by row, over the positions that count.
    """

    def __init__(self, peft: PeftModel, names: Mapping[str, str]) -> None:
        super().__init__()
        self.routing = "batch"
        self.mask: Tensor | None = None
        model: Any = peft.get_base_model()
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        for number, module in enumerate(sorted(names, key=by_number)):
            layer: Any = model.get_submodule(names[module])
            for router in layer.lily_router.values():
                router.register_forward_hook(self._said(number))
            layer.forward = self._by_row(layer.forward)

    def _begin(self, model: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        self.mask = kwargs.get("attention_mask")

    def _said(self, number: int) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
        def hook(router: nn.Module, args: Any, scores: Tensor) -> Tensor | None:
            if self.fixed:
                return self.fixed[number].to(scores.dtype).log().expand_as(scores)  # whose softmax they are
            self.see(number, torch.softmax(scores, -1).reshape(1, -1, scores.shape[-1]))
            return None

        return hook

    def _by_row(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def by_row(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            whole = forward(x, *args, **kwargs)
            if self.routing != "row":
                return whole
            rows = whole.clone()
            for row in range(len(x)):
                kept = torch.ones(x.shape[1:-1], dtype=torch.bool)
                if self.mask is not None and x.ndim == 3:
                    kept = self.mask[row, -x.shape[1] :] == 1
                rows[row, kept] = forward(x[row : row + 1, kept] if x.ndim == 3 else x[row : row + 1])[0]
            return rows

        return by_row


class LilyReference(Reference):
    """One adapter of all tasks, whose routers know none."""

    name: ClassVar[str] = "lily"
    title: ClassVar[str] = "Lily"
    tensor_part: ClassVar[str] = ".lily_"
    factors: ClassVar[tuple[str, ...]] = ("lily_A", "lily_B", "lily_router")
    router_parts: ClassVar[tuple[str, ...]] = ("lily_router",)
    routes_by_data: ClassVar[bool] = True
    routes_by_module: ClassVar[bool] = True

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return config.get("peft_type") == "LILY"

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        return tasks_by_heads(files[0], given)

    def modules(self, files: AdapterFiles) -> list[str]:
        return list(files.shapes(_ROUTER))

    def routers(self, files: AdapterFiles) -> Mapping[str, int]:
        shapes = files.shapes(_ROUTER)
        return {module: shapes[module][0] for module in sorted(shapes, key=by_number)}

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: SavedAs
    ) -> Any:
        """As PEFT saved it: the names of the targets decide which layers share their factors."""
        config = peft_config(files, saved)
        if not all(check_target_module_exists(config, name) for name in names.values()):
            config.target_modules, config.exclude_modules = list(names.values()), None
        return config

    def state(self, peft: PeftModel, names: Mapping[str, str]) -> _Routers:
        return _Routers(peft, names)

    def together(self, task: int, count: int) -> Hashable:
        """Tasks share all but the heads, which are picked per row."""
        return task == count

    def tell(self, state: _Routers, ids: Tensor, routes: GivenRoutes) -> None:
        state.routing = routes.routing
        state.tell(routes)


REFERENCE = LilyReference()
