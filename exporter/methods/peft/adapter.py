"""Adapters of PEFT's other methods on one base, each a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from eptx.exporter.adapters.adapter import Widths, natural_key
from eptx.exporter.adapters.checkpoint import Checkpoint
from eptx.exporter.adapters.constant import ConstantAdapter
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.peft.types import TUNERS


@dataclass(frozen=True)
class FullUpdate:
    """One task's update of one linear layer that no small factors hold.

    Attributes:
        difference: [out, in], added to the weight.
        shift: [out], added to the bias; None where nothing is.
    """

    difference: np.ndarray
    shift: np.ndarray | None = None

    def fold(self, weight: np.ndarray) -> np.ndarray:
        """`weight` [out, in] with the update in it, float64; the `shift` is of the bias, and not in it."""
        folded: np.ndarray = weight + self.difference
        return folded


@dataclass(frozen=True, kw_only=True)
class PeftAdapter(ConstantAdapter):
    """One or several adapters, of any of PEFT's methods.

    What the files hold says nothing of a layer without the base: `by_task` is empty until `complete` has seen that.

    Attributes:
        checkpoints: task -> its files.
        by_task: task name -> linear layer -> its update.
        shapes: linear layer -> [out, in] in the base.
    """

    method: ClassVar[str] = "peft"
    checkpoints: Mapping[str, Checkpoint]
    by_task: Mapping[str, Mapping[str, LinearUpdate | FullUpdate]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """PEFT's own name of the method; "peft" for several."""
        kinds = {str(each.config["peft_type"]).lower() for each in self.checkpoints.values()}
        return kinds.pop() if len(kinds) == 1 else self.method

    @property
    def module_names(self) -> tuple[str, ...]:
        """The linear layers that change; before the base was seen, every layer that the files name."""
        if self.by_task:
            names = {name for modules in self.by_task.values() for name in modules}
        else:
            names = {name for each in self.checkpoints.values() for name in tensors_by_module(each)}
        return tuple(sorted(names, key=natural_key))

    def widths(self, module: str) -> Widths:
        out_features, in_features = self.shapes[module]
        return Widths(in_features, range(out_features, out_features + 1))

    def parameters(self) -> int:
        return sum(array.size for each in self.checkpoints.values() for array in each.tensors.values())

    def describe(self) -> dict[str, Any]:
        return {
            "peft_types": {task: str(each.config["peft_type"]) for task, each in self.checkpoints.items()},
            "modules": [{"name": name, "tensors": self._tensors(name)} for name in self.module_names],
        }

    def _tensors(self, module: str) -> dict[str, list[list[int]]]:
        """Task -> the shapes of its tensors of a module."""
        found = {task: tensors_by_module(each).get(module, []) for task, each in self.checkpoints.items()}
        return {task: [list(array.shape) for array in arrays] for task, arrays in found.items() if arrays}


def tensors_by_module(checkpoint: Checkpoint) -> dict[str, list[np.ndarray]]:
    """Layer -> its tensors in a file; those that all layers share are of none."""
    part = TUNERS[str(checkpoint.config["peft_type"])].part
    found: dict[str, list[np.ndarray]] = {}
    if not part:
        return found
    for name, array in checkpoint.tensors.items():
        module, has_part, _ = name.partition(part)
        if has_part and module and module != "base_model":
            found.setdefault(module, []).append(array)
    return found
