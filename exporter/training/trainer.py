"""Transformers' ``Trainer`` for several tasks at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import Trainer

from eptx.errors import UsageError
from eptx.exporter.training.data import TaskSampler, row_tasks
from eptx.exporter.training.heads import TaskHeadBank
from eptx.exporter.training.losses import task_head_loss
from eptx.exporter.training.metrics import TaskMetrics


class TaskTrainer(Trainer):
    """``transformers.Trainer`` for a model that takes the ``task`` of each row: batches mix tasks, the loss is that of
    each row's task head plus what the method adds (`EptxTuner.auxiliary_loss`), metrics are per task.

    All else is the Trainer's: resuming, the best checkpoint, early stopping, precision, progress. Rows have the base's
    inputs, ``task`` and ``labels`` (`RowEncoder` makes them). A model without task heads (a language model) computes
    its own loss, to which the method's is added.

    Args:
        args: of ``Trainer``, the model first.
        mix: how tasks are mixed. 1: every row once an epoch, shuffled, so each task by its share of the rows; less: see
            `TaskSampler`.
        class_weights: ``{task: weight of each label}``, by which the terms of the loss are multiplied.
        kwargs: of ``Trainer``; ``compute_metrics`` is `TaskMetrics` unless it is given.

    Raises:
        DataError: rows of the training name tasks or labels that the model has not, or a task has no rows.
        UsageError: an argument is not for this trainer.
    """

    def __init__(
        self,
        *args: Any,
        mix: float = 1.0,
        class_weights: Mapping[str, Sequence[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        if not 0 <= mix <= 1:
            raise UsageError(f"mix must lie in 0..1, got {mix}")
        if kwargs.get("compute_loss_func") is not None:
            raise UsageError("a TaskTrainer knows each task's loss: leave out compute_loss_func, and see class_weights")
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise UsageError("several GPUs in one process would share the tasks of a batch: start it with torchrun")
        # `task` must survive remove_unused_columns, and metrics need it.
        self.label_names = ["labels", "task"]
        self.mix, self.class_weights = mix, {}
        heads = self._heads
        if heads is not None:
            self.model_accepts_loss_kwargs = True  # the loss below divides by the rows of all accumulated batches
            self.compute_metrics = self.compute_metrics or TaskMetrics(heads.tasks, heads.labels)
            self.class_weights = _weights(class_weights or {}, heads)
        elif class_weights:
            raise UsageError("class_weights are for models with task heads")
        self._tasks: list[int] = []
        if hasattr(self.train_dataset, "__len__"):
            counts = None if heads is None else heads.labels
            self._tasks = row_tasks(self.train_dataset, self._task_names(), counts)
        elif mix != 1:
            raise UsageError("mix needs a dataset with a length")

    @property
    def _heads(self) -> TaskHeadBank | None:
        return getattr(self.model, "task_heads", None)

    def _task_names(self) -> list[str]:
        if self._heads is not None:
            return self._heads.tasks
        tasks = getattr(self.model.active_peft_config, "tasks", None) if isinstance(self.model, PeftModel) else None
        if tasks is None:
            raise UsageError("the model has no tasks: it must have task heads, or an adapter of eptx.peft")
        return list(tasks)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.mix == 1:
            return super()._get_train_sampler(train_dataset)
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        return TaskSampler(self._tasks, self.mix, seed)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of the tasks, and in training what the method adds to it; see `Trainer.compute_loss`."""
        heads = self._heads
        if heads is None:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        else:
            outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
            loss = task_head_loss(
                outputs["logits"],
                inputs["task"],
                inputs["labels"],
                heads.labels,
                items=num_items_in_batch,
                class_weights=self.class_weights,
                label_smoothing=self.args.label_smoothing_factor,
            )
            if self.args.average_tokens_across_devices and num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes
        added = getattr(getattr(self.model, "base_model", None), "auxiliary_loss", None)
        if model.training and added is not None:
            # A mean over rows, while the loss above is already divided by the rows of all accumulated batches.
            loss = loss + added.float() / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss


def _weights(given: Mapping[str, Sequence[float]], heads: TaskHeadBank) -> dict[int, Tensor]:
    found = {}
    for task, weights in given.items():
        if task not in heads.tasks:
            raise UsageError(f"class_weights name {task!r}; the tasks are {', '.join(heads.tasks)}")
        number = heads.tasks.index(task)
        if heads.labels[number] == 1 or len(weights) != heads.labels[number] or min(weights) < 0:
            raise UsageError(f"class_weights of {task!r} must be one weight, 0 or more, for each of its labels")
        found[number] = torch.tensor(list(weights), dtype=torch.float32)
    return found
