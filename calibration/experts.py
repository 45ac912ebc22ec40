"""Which experts of an adapter each task uses, and which no task uses: a conditioned bundle leaves those out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.routing.routers import expert_sizes
from eptx.exporter.methods.method import method_of

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


def study_experts(adapter: Adapter) -> ExpertStudy | None:
    """Reads the routers' choices off an adapter; no model is run. None where tasks have no experts of their own."""
    found = method_of(adapter.method).task_experts(adapter)
    if not found:
        return None
    chosen = {name: {expert for task in module.choices for expert, _ in task} for name, module in found.items()}
    left = {name: sorted(set(range(len(module.sizes))) - chosen[name]) for name, module in found.items()}
    return ExpertStudy(
        adapter.tasks,
        expert_sizes(found.values()),
        {name: dict(zip(adapter.tasks, module.choices, strict=True)) for name, module in found.items()},
        {name: tuple(experts) for name, experts in left.items() if experts},
    )
