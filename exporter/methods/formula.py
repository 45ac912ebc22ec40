"""The trained model of a method that PEFT lacks, from its formula: PEFT fills layers that hold what the file holds.

The formula is written in PyTorch from the sources that the method's folder names. It shares nothing with what reads and
folds the same files for an export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from eptx.exporter.methods.peft_types import peft_type, register
from eptx.exporter.methods.tuner import EptxTuner, TaskRows
from eptx.exporter.trained.files import PREFIX, AdapterFiles
from eptx.exporter.trained.names import exactly
from eptx.exporter.trained.reference import GivenRoutes, Reference, SavedAs

#: A layer's tensors by their names behind the module's, the configuration, rows [batch, positions, in] and the task of
#: each [batch] -> what is added to the layer's output [batch, positions, out].
Formula = Callable[[Mapping[str, Tensor], Mapping[str, Any], Tensor, Tensor], Tensor]


@dataclass
class FormulaConfig(PeftConfig):
    """Settings of such an adapter.

    Args:
        kind: the method's name.
        target_modules: names of the linear layers.
        tasks: names of the tasks.
        shapes: linear layer -> its tensors by name -> their shapes.
        settings: ``adapter_config.json``.
        routers: linear layer -> the number of the router that weighs its experts, where routers are several.
    """

    kind: str = ""
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | None = None
    layers_pattern: list[str] | None = None
    modules_to_save: list[str] | None = None
    tasks: list[str] = field(default_factory=list)
    shapes: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    routers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.peft_type = peft_type(self.kind)


class FormulaLinear(nn.Module, BaseTunerLayer):
    """A linear layer to whose output the formula adds each row's update."""

    def __init__(
        self, base_layer: nn.Module, name: str, state: TaskRows, config: FormulaConfig, layer: str, formula: Formula
    ) -> None:
        super().__init__()
        self.base_layer, self.state, self.formula, self.settings = base_layer, state, formula, config.settings
        self.tensors = list(config.shapes[layer])
        self.adapter_layer_names = tuple(dict.fromkeys(path.partition(".")[0] for path in self.tensors))
        for path in self.tensors:
            _plant(self, path, name, torch.zeros(config.shapes[layer][path]))
        self._disable_adapters, self.merged_adapters, self._active_adapter = False, [], name

    def forward(self, x: Tensor) -> Tensor:
        """The output of the layer below, and each row's update; rows of no task get none."""
        y: Tensor = self.base_layer(x)
        ids = self.state.ids
        if self.disable_adapters or ids is None:
            return y
        rows, served = self.state.as_rows(x), ids < self.state.num_tasks
        update = self._update(rows, torch.where(served, ids, 0))
        return y + self.state.as_output(update * served[:, None, None], y).to(y.dtype)

    def _update(self, rows: Tensor, ids: Tensor) -> Tensor:
        """What is added to the outputs of rows [batch, positions, in] of these tasks [batch]."""
        return self.formula(self._named(), self.settings, rows, ids)

    def _named(self) -> dict[str, Tensor]:
        return {path: self._tensor(path) for path in self.tensors}

    def _tensor(self, path: str) -> Tensor:
        first, _, rest = path.partition(".")
        found: nn.Module | Tensor = getattr(self, first)[self.active_adapters[0]]
        return found.get_parameter(rest) if isinstance(found, nn.Module) else found


def _plant(layer: nn.Module, path: str, name: str, tensor: Tensor) -> None:
    """Makes a parameter where PEFT looks for a tensor of the file: the adapter's name is behind the first word."""
    first, *rest = path.split(".")
    if not rest:
        layer.register_module(first, nn.ParameterDict({name: tensor}))
        return
    if first not in dict(layer.named_children()):
        layer.register_module(first, nn.ModuleDict({name: nn.Module()}))
    inner = layer.get_submodule(f"{first}.{name}")
    for word in rest[:-1]:
        if word not in dict(inner.named_children()):
            inner.register_module(word, nn.Module())
        inner = inner.get_submodule(word)
    inner.register_parameter(rest[-1], nn.Parameter(tensor))


class FormulaModel(EptxTuner):
    """Puts `FormulaLinear` in place of the targeted layers."""

    formula: ClassVar[Callable[..., Tensor]]
    tuner_layer_cls = FormulaLinear
    state_cls: ClassVar[type[TaskRows]] = TaskRows

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        self.state = self.state_cls(len(config.tasks))

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if not isinstance(target, nn.Linear | Conv1D):
            raise TypeError(f"it adapts linear layers only, and {current_key} is a {type(target).__name__}")
        layer: type[FormulaLinear] = self.tuner_layer_cls
        new = layer(target, adapter_name, self.state, peft_config, current_key, type(self).formula)
        self._replace_module(parent, target_name, new, target)


class FormulaReference(Reference):
    """One adapter of all tasks.

    Attributes:
        by_task: the tensor, by its name behind the module's, whose first axis is the tasks.
        model: the tuner that is registered, with the formula.
    """

    by_task: ClassVar[str]
    model: ClassVar[type[FormulaModel]] = FormulaModel

    def __init_subclass__(cls, *, formula: Callable[..., Tensor] | None = None) -> None:
        """`formula` is what is added to a layer's output; None for a class that others are made of."""
        if formula is None:
            return
        prefix = cls.tensor_part.removeprefix(".")
        register(
            cls.name,
            FormulaConfig,
            type(f"{cls.__name__}Model", (cls.model,), {"formula": staticmethod(formula), "prefix": prefix}),
        )

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return str(config.get("peft_type")) == self.name.upper()

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        count = max((shape[0] for shape in files[0].shapes(f".{self.by_task}").values()), default=1)
        return count, list(files[0].config.get("tasks") or [])

    def modules(self, files: AdapterFiles) -> list[str]:
        return list(files.shapes(f".{self.by_task}"))

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: SavedAs
    ) -> FormulaConfig:
        shapes: dict[str, dict[str, list[int]]] = {new: {} for new in names.values()}
        for name, tensor in files.tensors.items():
            module, part, rest = name.removeprefix(PREFIX).partition(self.tensor_part)
            if part and module in names:
                shapes[names[module]][part.removeprefix(".") + rest] = list(tensor.shape)
        return FormulaConfig(
            kind=self.name.upper(),
            target_modules=exactly(list(names.values())),
            tasks=list(tasks),
            shapes=shapes,
            settings=dict(files.config),
            task_type=saved[0],
            modules_to_save=saved[1],
            inference_mode=True,
        )

    def tell(self, state: Any, ids: Tensor, routes: GivenRoutes) -> None:
        """Rows of one task are as one row: layers whose input has no rows then run as transformers calls them."""
        state.set(ids[:1] if bool((ids == ids[0]).all()) else ids)
