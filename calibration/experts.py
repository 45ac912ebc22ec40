"""Which experts of an EPT adapter each task uses, and which no task uses: a conditioned bundle leaves those out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eptx.exporter.methods.ept.adapter import EptAdapter
from eptx.exporter.methods.ept.fold import route

#: An expert's number, and how much it counts for a task.
Choice = tuple[int, float]


@dataclass(frozen=True)
class ExpertStudy:
    """What the routers choose, which is a matter of the task alone.

    Attributes:
        tasks: their names, by id.
        sizes: every expert's kernel size, by its number; None where modules differ.
        modules: module -> task -> its experts, most probable first, with weights that sum to 1.
        unused: module -> the experts that no task uses there; modules that have none are left out.
    """

    tasks: tuple[str, ...]
    sizes: tuple[int | None, ...]
    modules: Mapping[str, Mapping[str, tuple[Choice, ...]]]
    unused: Mapping[str, tuple[int, ...]]

    @property
    def usage(self) -> dict[str, np.ndarray]:
        """Task -> the share of its choices that fall on each expert, over all modules: [experts], which sum to 1."""
        usage = {task: np.zeros(len(self.sizes)) for task in self.tasks}
        for choices in self.modules.values():
            for task, chosen in choices.items():
                usage[task][[expert for expert, _ in chosen]] += 1
        return {task: counts / counts.sum() for task, counts in usage.items()}

    @property
    def unused_everywhere(self) -> tuple[int, ...]:
        """Experts that no task uses in any module."""
        total = np.sum(list(self.usage.values()), axis=0)
        return tuple(int(expert) for expert in np.flatnonzero(total == 0))

    def to_json(self) -> dict[str, Any]:
        """As ``calibration.json`` has it under ``experts``."""
        return {
            "experts": len(self.sizes),
            "sizes": list(self.sizes),
            "tasks": list(self.tasks),
            "modules": {
                module: {task: [list(choice) for choice in chosen] for task, chosen in choices.items()}
                for module, choices in self.modules.items()
            },
            "usage": {task: share.tolist() for task, share in self.usage.items()},
            "unused": {module: list(experts) for module, experts in self.unused.items()},
            "unused_everywhere": list(self.unused_everywhere),
        }


def study_experts(adapter: EptAdapter) -> ExpertStudy:
    """Reads the routers' choices off an adapter whose top-k is known; no model is run."""
    modules, unused = {}, {}
    for name, module in adapter.modules.items():
        routes = [route(module, task, adapter.top_k) for task in range(len(adapter.tasks))]
        modules[name] = {
            task: tuple((int(expert), float(weight)) for expert, weight in zip(*found, strict=True))
            for task, found in zip(adapter.tasks, routes, strict=True)
        }
        chosen = {expert for choices in modules[name].values() for expert, _ in choices}
        left = tuple(expert for expert in range(len(module.kernels)) if expert not in chosen)
        if left:
            unused[name] = left
    return ExpertStudy(adapter.tasks, _sizes(adapter), modules, unused)


def _sizes(adapter: EptAdapter) -> tuple[int | None, ...]:
    most = max(len(module.kernels) for module in adapter.modules.values())
    sizes = [{m.sizes[e] for m in adapter.modules.values() if e < len(m.sizes)} for e in range(most)]
    return tuple(size.pop() if len(size) == 1 else None for size in sizes)
