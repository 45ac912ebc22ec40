"""Methods whose tasks mix the experts of each layer with weights that are constants: one low-rank update a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from eptx.errors import AdapterError
from eptx.exporter.adapters.adapter import Widths, name_tasks, natural_key
from eptx.exporter.adapters.checkpoint import AGAIN, WEIGHTS, Checkpoint, ReadOptions, group_by_module, task_names
from eptx.exporter.adapters.constant import ConstantAdapter
from eptx.exporter.adapters.routing.routers import ModuleExperts, mixed
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.constant import Constant
from eptx.exporter.methods.one_folder import common_fields, only


class Mixture(Protocol):
    """What the file holds of one linear layer."""

    @property
    def in_features(self) -> int: ...

    @property
    def out_features(self) -> int: ...

    def weights(self) -> np.ndarray:
        """How much each expert counts for each task, float64 [tasks, experts]; each row sums to 1."""
        ...

    def update(self, task: int) -> LinearUpdate:
        """The update of a task, by its id, float64."""
        ...

    def arrays(self) -> tuple[np.ndarray, ...]:
        """All that the file holds of the layer."""
        ...

    def facts(self) -> Mapping[str, int]:
        """What ``eptx inspect`` shows of the layer, besides its name."""
        ...


@dataclass(frozen=True, kw_only=True)
class MixtureAdapter(ConstantAdapter):
    """An adapter of all its tasks.

    Attributes:
        modules: linear layer -> what the file holds of it.
    """

    modules: Mapping[str, Mixture] = field(default_factory=dict)

    @property
    def module_names(self) -> tuple[str, ...]:
        return tuple(sorted(self.modules, key=natural_key))

    def widths(self, module: str) -> Widths:
        own = self.modules[module]
        return Widths(own.in_features, range(own.out_features, own.out_features + 1))

    def parameters(self) -> int:
        return sum(array.size for module in self.modules.values() for array in module.arrays())

    def describe(self) -> dict[str, Any]:
        return {"modules": [{"name": name, **self.modules[name].facts()} for name in self.module_names]}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Weights, float64, of the same shape; those along the last axis sum to 1."""
    logits = logits.astype(np.float64)
    raw = np.exp(logits - logits.max(-1, keepdims=True))
    weights: np.ndarray = raw / raw.sum(-1, keepdims=True)
    return weights


_Own = TypeVar("_Own", bound=MixtureAdapter)
#: From a module's name, its tensors and the configuration to what they hold.
Read = Callable[[str, dict[str, np.ndarray], Mapping[str, Any]], Mixture]


def read_mixture(
    own: type[_Own], title: str, checkpoints: Sequence[Checkpoint], options: ReadOptions, marker: str, module: Read
) -> _Own:
    """The adapter of one folder.

    Args:
        own: its class.
        title: of the method, for messages.
        checkpoints: the folder.
        options: what the user says.
        marker: how the names of its tensors go on after the module's name and a dot.
        module: reads one module.

    Raises:
        AdapterError: tensors are missing, or do not fit each other.
        UsageError: several folders were given.
    """
    checkpoint = only(title, checkpoints)
    grouped = group_by_module(checkpoint.tensors, marker)
    modules = {name: module(name, grouped[name], checkpoint.config) for name in sorted(grouped, key=natural_key)}
    counts = sorted({len(each.weights()) for each in modules.values()})
    if len(counts) != 1:
        problem = f"modules disagree on the number of tasks: {counts}" if counts else f"holds no factors of {title}"
        raise AdapterError(f"{WEIGHTS}: {problem}: {AGAIN}")
    tasks = name_tasks(counts[0], options.tasks, task_names(checkpoint.config))
    return own(
        **common_fields(checkpoint, tasks),
        by_task={task: {name: each.update(id_) for name, each in modules.items()} for id_, task in enumerate(tasks)},
        modules=modules,
    )


class MixtureMethod(Constant):
    """A method whose `read` gives a `MixtureAdapter`."""

    def task_experts(self, adapter: MixtureAdapter) -> Mapping[str, ModuleExperts]:
        return {name: mixed(module.weights()) for name, module in adapter.modules.items()}
