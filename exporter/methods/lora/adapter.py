"""LoRA adapters on one base, each a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from eptx.errors import AdapterError
from eptx.exporter.adapters.adapter import Widths, natural_key
from eptx.exporter.adapters.checkpoint import Checkpoint, combine
from eptx.exporter.adapters.constant import ConstantAdapter
from eptx.exporter.adapters.heads import joined_heads
from eptx.exporter.adapters.trained_as import TrainedAs
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.lora.module import LoraModule


@dataclass(frozen=True, kw_only=True)
class LoraAdapter(ConstantAdapter):
    """One or several LoRA adapters.

    Attributes:
        by_task: task name -> module name -> its factors, or the update that a bundle holds of them. Tasks may adapt
            different modules.
        unplaced: task -> its files, of which only the base says what their factors are of; `complete` places them.
    """

    method: ClassVar[str] = "lora"
    by_task: Mapping[str, Mapping[str, LoraModule | LinearUpdate]] = field(default_factory=dict)
    unplaced: Mapping[str, Checkpoint] = field(default_factory=dict)

    @property
    def module_names(self) -> tuple[str, ...]:
        """The linear layers; of a task that is not placed yet, all that its file names."""
        names = {name for modules in self.by_task.values() for name in modules}
        names |= {name.partition(".lora_")[0] for files in self.unplaced.values() for name in files.tensors}
        return tuple(sorted(names, key=natural_key))

    def of_module(self, module: str) -> dict[str, LoraModule | LinearUpdate]:
        """The tasks that adapt a module, with their factors."""
        return {task: modules[module] for task, modules in self.by_task.items() if module in modules}

    def update(self, task: str, module: str, weight: Callable[[], np.ndarray]) -> LinearUpdate | None:
        own = self.by_task[task].get(module)
        return own.update(weight) if isinstance(own, LoraModule) else own

    def widths(self, module: str) -> Widths:
        inner, outer = _shape(next(iter(self.of_module(module).values())))
        return Widths(inner, range(outer, outer + 1))

    def parameters(self) -> int:
        placed = sum(module.parameters() for modules in self.by_task.values() for module in modules.values())
        return placed + sum(array.size for files in self.unplaced.values() for array in files.tensors.values())

    def describe(self) -> dict[str, Any]:
        return {
            "modules": [
                {"name": name, "task_ranks": {task: _rank(m) for task, m in self.of_module(name).items()}}
                for name in self.module_names
            ]
        }


def joined(parts: Sequence[LoraAdapter]) -> LoraAdapter:
    """Adapters of other tasks of one base as one adapter.

    Raises:
        AdapterError: they are of different bases.
    """
    prints = tuple(each for part in parts for each in part.fingerprints)
    adapter = LoraAdapter(
        tasks=tuple(task for part in parts for task in part.tasks),
        heads=joined_heads([part.heads for part in parts]),
        fingerprint=combine(prints),
        fingerprints=prints,
        changes={task: own for part in parts for task, own in part.changes.items()},
        trained_as=tuple(each for part in parts for each in part.trained_as),
        folders=tuple(folder for part in parts for folder in part.folders),
        label_names={task: own for part in parts for task, own in part.label_names.items()},
        by_task={task: own for part in parts for task, own in part.by_task.items()},
        unplaced={task: files for part in parts for task, files in part.unplaced.items()},
    )
    return of_one_base(adapter)


def of_one_base(adapter: LoraAdapter) -> LoraAdapter:
    """The adapter, whose tasks agree on every module's widths.

    Raises:
        AdapterError: they do not.
    """
    for module in sorted({name for modules in adapter.by_task.values() for name in modules}):
        shapes = {_shape(factors) for factors in adapter.of_module(module).values()}
        if len(shapes) != 1:
            raise AdapterError(
                f"the LoRA adapters are not of one base: {module} has widths {sorted(shapes)}: export each by itself"
            )
    return adapter


def reads_base(adapter: LoraAdapter) -> str | None:
    """A module whose update is computed from the base's weight: DoRA's, or one that starts from that."""
    own = [(name, module) for modules in adapter.by_task.values() for name, module in modules.items()]
    return next((name for name, m in own if isinstance(m, LoraModule) and (m.start or m.magnitude is not None)), None)


def restored(task: str, updates: Mapping[str, LinearUpdate], fingerprint: str, trained_as: TrainedAs) -> LoraAdapter:
    """The adapter of one task of a bundle, of its modules' updates."""
    return LoraAdapter(
        tasks=(task,),
        heads=None,
        fingerprint=fingerprint,
        fingerprints=(fingerprint,),
        trained_as=(trained_as,),
        by_task={task: updates},
    )


def _rank(factors: LoraModule | LinearUpdate) -> int:
    return 0 if factors.a is None else int(factors.a.shape[0])


def _shape(factors: LoraModule | LinearUpdate) -> tuple[int, int]:
    """The width of what a module reads, and of what it gives."""
    assert factors.a is not None and factors.b is not None, "LoRA has factors at every module"
    return int(factors.a.shape[1]), int(factors.b.shape[0])
