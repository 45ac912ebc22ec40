"""What an adapter is, whatever its method: modules, tasks and, for classifiers, task heads."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from eptx.errors import AdapterError, UsageError
from eptx.exporter.adapters.changes import TensorChange
from eptx.exporter.adapters.label_names import Names
from eptx.exporter.adapters.trained_as import TrainedAs

Pooling = Literal["pooler", "first", "mean"]


@dataclass(frozen=True)
class TaskHeads:
    """Linear classifiers, one per task, that read one pooled vector of the bare model.

    Attributes:
        weights: task -> [labels, hidden]. biases: task -> [labels].
        pooling: what they read: ``pooler_output``, position 0 of ``last_hidden_state``, or its mean over
            unpadded positions.
    """

    weights: Mapping[str, np.ndarray]
    biases: Mapping[str, np.ndarray]
    pooling: Pooling

    @property
    def hidden_size(self) -> int:
        """Width of the vector that the heads read."""
        return int(next(iter(self.weights.values())).shape[1])

    def labels(self, task: str) -> int:
        """How many logits a task has; 0 for a task without a head."""
        return int(self.weights[task].shape[0]) if task in self.weights else 0


@dataclass(frozen=True)
class Widths:
    """What an adapter's files say of a linear's shape.

    Attributes:
        in_features: the width of its input; None where the files say nothing of it.
        out_features: the widths of its output that fit; None where the files say nothing of it.
    """

    in_features: int | None
    out_features: range | None


@dataclass(frozen=True, kw_only=True)
class Adapter(ABC):
    """A trained adapter, read from disk.

    Attributes:
        tasks: task names; a task's id is its index.
        heads: classifiers the adapter brings, or None when the base model's own head serves.
        fingerprint: ``sha256:<hex>`` over the adapter's files.
        fingerprints: the same of each folder, where the folders are a task each.
        changes: task -> what it changes of tensors that are no linear layer's weight, by their names in the class.
        trained_as: what the files say of the class, one for each folder.
        folders: where the files are.
        label_names: task -> what its labels may be called, what counts first at the front; names of another number than
            its labels are of something else.
    """

    method: ClassVar[str]
    tasks: tuple[str, ...]
    heads: TaskHeads | None
    fingerprint: str
    fingerprints: tuple[str, ...] = ()
    changes: Mapping[str, Mapping[str, TensorChange]] = field(default_factory=dict)
    trained_as: tuple[TrainedAs, ...] = ()
    folders: tuple[Path, ...] = ()
    label_names: Mapping[str, tuple[Names, ...]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What manifests call the method: its name, or that of one of its kinds."""
        return self.method

    @property
    @abstractmethod
    def module_names(self) -> tuple[str, ...]:
        """The adapted modules, without ``base_model.model.``, in module order."""

    @abstractmethod
    def widths(self, module: str) -> Widths:
        """The linear's shape as the adapter's files know it."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What ``eptx inspect`` shows beside the fields common to all methods."""

    @abstractmethod
    def parameters(self) -> int:
        """How many numbers the adapter's modules store."""


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts ``layer.2`` before ``layer.10``."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name))


def name_tasks(count: int | None, given: Sequence[str] | None, default: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of tasks by id; the unnamed rest of `count` are task<i>.

    Args:
        count: how many tasks the adapter's files hold; None when they hold none in particular.
        given: the user's names.
        default: the adapter's own names, used when none are given.

    Raises:
        UsageError: more names are given than there are tasks.
        AdapterError: the adapter names more tasks than it has.
    """
    names = list(given or default or [])
    if count is not None and len(names) > count:
        if given:
            raise UsageError(f"--tasks names {len(given)} tasks; the adapter has {count}")
        raise AdapterError(f"adapter_config.json names {len(names)} tasks; the adapter has {count}")
    return tuple(names + [f"task{i}" for i in range(len(names), count or 0)])
