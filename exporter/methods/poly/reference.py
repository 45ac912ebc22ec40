"""The trained Poly model: PEFT's own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from peft import PeftModel
from peft.tuners.poly.layer import PolyLayer
from torch import Tensor, nn

from eptx.exporter.trained.files import AdapterFiles
from eptx.exporter.trained.names import exactly
from eptx.exporter.trained.reference import GivenRoutes, Reference, SavedAs, peft_config

_LOGITS = ".poly_router.module_logits"


class _Tasks:
    """The rows' tasks, which PEFT's layers are given beside their input."""

    def __init__(self, peft: PeftModel) -> None:
        self.ids = torch.zeros(1, dtype=torch.int64)
        for layer in peft.modules():
            if isinstance(layer, PolyLayer):
                layer.register_forward_pre_hook(self._give, with_kwargs=True)

    def _give(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rows = len(args[0])
        return args, {**kwargs, "task_ids": self.ids if len(self.ids) == rows else self.ids[:1].expand(rows)}


class PolyReference(Reference):
    """One adapter of all tasks: every row mixes the skills as its task does."""

    name: ClassVar[str] = "poly"
    title: ClassVar[str] = "Poly"
    tensor_part: ClassVar[str] = ".poly_"
    factors: ClassVar[tuple[str, ...]] = ("poly_lora_A", "poly_lora_B")
    router_parts: ClassVar[tuple[str, ...]] = ("poly_router",)

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return config.get("peft_type") == "POLY"

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        """The tensors count the tasks, for each has its logits."""
        count = max((shape[0] for shape in files[0].shapes(_LOGITS).values()), default=1)
        return count, list(files[0].config.get("tasks") or [])

    def modules(self, files: AdapterFiles) -> list[str]:
        return list(files.shapes(_LOGITS))

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: SavedAs
    ) -> Any:
        config = peft_config(files, saved)
        config.target_modules, config.exclude_modules = exactly(list(names.values())), None
        return config

    def state(self, peft: PeftModel, names: Mapping[str, str]) -> _Tasks:
        return _Tasks(peft)

    def together(self, task: int, count: int) -> Hashable:
        """PEFT switches the adapter off for all rows."""
        return task == count

    def tell(self, state: _Tasks, ids: Tensor, routes: GivenRoutes) -> None:
        state.ids = ids


REFERENCE = PolyReference()
