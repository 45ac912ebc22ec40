"""What the tuners share: which rows are which task, and where one forward of the model begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from eptx.exporter.bases.passes.deberta import allow_positions_per_row

INFER = -1
"""Task id of a row whose task is to be inferred from the row itself (EPT).

The reference reads nothing of a bundle, so the value stands here besides `eptx.manifest.names`.
"""


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
    """A PEFT tuner for linear layers that share state for the length of one forward of the model."""

    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - PEFT declares it so

    def _post_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.register_forward_hook(self._end, always_call=True)
        allow_positions_per_row(model, self.state.share_input, lambda: self.state.per_row)

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before each forward of the wrapped model."""

    def _end(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Called after each forward of the wrapped model, also after one that failed."""
