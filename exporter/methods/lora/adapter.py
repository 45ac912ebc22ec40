"""LoRA adapters on one base, each a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from eptx.exporter.adapters.adapter import Adapter, Widths, natural_key
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.lora.module import LoraModule


@dataclass(frozen=True, kw_only=True)
class LoraAdapter(Adapter):
    """One or several LoRA adapters.

    Attributes:
        by_task: task name -> module name -> its factors. Tasks may adapt different modules.
    """

    method: ClassVar[str] = "lora"
    by_task: Mapping[str, Mapping[str, LoraModule]]

    @property
    def module_names(self) -> tuple[str, ...]:
        return tuple(sorted({name for modules in self.by_task.values() for name in modules}, key=natural_key))

    def of_module(self, module: str) -> dict[str, LoraModule]:
        """The tasks that adapt a module, with their factors."""
        return {task: modules[module] for task, modules in self.by_task.items() if module in modules}

    def update(self, task: str, module: str, weight: Callable[[], np.ndarray]) -> LinearUpdate | None:
        """What a task changes of a module, whose weight is [out, in]; None if nothing."""
        own = self.by_task[task].get(module)
        return None if own is None else own.update(weight)

    def widths(self, module: str) -> Widths:
        first = next(iter(self.of_module(module).values()))
        return Widths(int(first.a.shape[1]), range(first.b.shape[0], first.b.shape[0] + 1))

    def parameters(self) -> int:
        return sum(module.parameters() for modules in self.by_task.values() for module in modules.values())

    def describe(self) -> dict[str, Any]:
        return {
            "modules": [
                {"name": name, "task_ranks": {task: int(m.a.shape[0]) for task, m in self.of_module(name).items()}}
                for name in self.module_names
            ]
        }
