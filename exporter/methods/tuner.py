"""What the tuners share: which rows are which task, and where one forward of the model begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from eptx.exporter.bases.passes.deberta import allow_positions_per_row
from eptx.exporter.methods.peft_types import task_type

INFER = -1
"""Task id of a row whose task is to be inferred from the row itself (EPT).

The reference reads nothing of a bundle, so the value stands here besides `eptx.manifest.names`.
"""

TASK_HEADS = "TASK_HEADS"
"""PEFT's ``task_type`` of a bare model with a head for each task."""


@dataclass
class TunerConfig(PeftConfig):
    """What the settings of all tuners have in common.

    Args:
        target_modules: names (suffixes) of the linear layers to adapt, or one regular expression over whole
            names.
        exclude_modules: names to leave out, same form.
        tasks: task names; a task's id is its index.
        task_labels: names of the labels, ``{task: names}``; a single name makes the task a regression. The model then
            gets a head for each task.
        task_head_pooling: what the task heads read: ``pooler``, ``first`` or ``mean``; None without heads.
        init_weights: False leaves the weights uninitialized (they are about to be loaded).
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    tasks: list[str] = field(default_factory=lambda: ["task0"])
    task_labels: dict[str, list[str]] | None = None
    task_head_pooling: str | None = None
    init_weights: bool = True
    bias: str = "none"
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.task_type is None and self.task_labels and self.task_head_pooling:
            self.task_type = TASK_HEADS
        if self.task_type == TASK_HEADS:
            self.task_type = task_type(TASK_HEADS)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.tasks = list(self.tasks)
        if self.bias != "none":
            raise ValueError(f"{type(self).__name__} trains no biases, got bias={self.bias!r}")
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must be distinct names and at least one, got {self.tasks}")


class TaskRows:
    """The task of each row of the batch, shared by all layers of one tuner.

    Attributes:
        ids: int64 ``[batch]``, or None while no task was set. Id ``num_tasks`` is ``base``: the adapter is
            off.
        num_tasks: number of tasks of the adapter.
        shared: whether the layer that runs now reads something that all rows share (DeBERTa-v2's relative positions).
    """

    def __init__(self, num_tasks: int) -> None:
        self.num_tasks = num_tasks
        self.ids: Tensor | None = None
        self.shared = False

    @property
    def per_row(self) -> bool:
        """Whether what the layers compute of an input that all rows share differs from row to row."""
        return self.ids is not None and (len(self.ids) > 1 or bool((self.ids < 0).any()))

    @contextmanager
    def share_input(self) -> Iterator[None]:
        """What layers read inside is shared by all rows."""
        self.shared = True
        try:
            yield
        finally:
            self.shared = False

    def set(self, ids: Sequence[int] | Tensor | None, *, lowest: int = 0) -> None:
        """Set the tasks, one id per row.

        Training calls this without a `Trained`, whose own check of ids is for validation; so the range is checked here
        too.

        Raises:
            ValueError: the ids are not ``[batch]``, or one is outside ``lowest..num_tasks``.
            TypeError: they are no whole numbers.
        """
        if ids is None:
            self.ids = None
            return
        given = torch.as_tensor(ids)
        if given.ndim != 1 or given.numel() == 0:
            raise ValueError(f"task ids must be [batch], got shape {list(given.shape)}")
        if not torch.can_cast(given.dtype, torch.int64):
            raise TypeError(f"task ids must be whole numbers, got {given.tolist()}")
        tensor = given.to(torch.int64)
        if int(tensor.min()) < lowest or int(tensor.max()) > self.num_tasks:
            raise ValueError(f"task ids must lie in {lowest}..{self.num_tasks}, got {tensor.tolist()}")
        self.ids = tensor

    def as_rows(self, x: Tensor) -> Tensor:
        """View ``x`` ``[..., in]`` as ``[batch, positions, in]``; without task ids every row of x is one."""
        if self.ids is None:
            return x.reshape(x.shape[0], -1, x.shape[-1])
        batch = int(self.ids.shape[0])
        if self.shared:
            return x.reshape(1, -1, x.shape[-1]).expand(batch, -1, -1)
        if x.shape[0] % batch:
            raise ValueError(f"{batch} task ids do not divide an input of {x.shape[0]} rows")
        return x.reshape(batch, -1, x.shape[-1])

    def as_output(self, rows: Tensor, y: Tensor) -> Tensor:
        """What was computed of rows, in the shape of ``y`` unless that is shared and has none."""
        return rows if self.shared else rows.reshape(y.shape)


class EptxTuner(BaseTuner):
    """A PEFT tuner for linear layers that share state for the length of one forward of the model.

    Every model that PEFT makes with it takes one argument more, ``task``: the task id of each row, int64 ``[batch]``.

    Attributes:
        auxiliary_loss: what the last forward adds to the loss of the tasks, a scalar; None where it adds nothing.
    """

    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - PEFT declares it so
    auxiliary_loss: Tensor | None = None

    def _post_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        model.register_forward_pre_hook(self._take_tasks, with_kwargs=True)
        model.register_forward_hook(self._end, always_call=True)
        allow_positions_per_row(model, self.state.share_input, lambda: self.state.per_row)

    def set_tasks(self, ids: Sequence[int] | Tensor | None) -> None:
        """Task id of each row from now on; ``len(tasks)`` switches the adapter off for the row."""
        self.state.set(ids)

    def _take_tasks(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Takes ``task`` from the arguments of a forward, which the wrapped model does not know."""
        own = dict(kwargs)
        if own.get("task") is not None:
            self.set_tasks(own["task"])
        own.pop("task", None)
        self._begin(model, args, own)
        return args, own

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before each forward of the wrapped model."""

    def _end(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Called after each forward of the wrapped model, also after one that failed."""
