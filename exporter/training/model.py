"""PEFT's model around a bare base, with a head for each task.

``get_peft_model`` and ``PeftModel.from_pretrained`` make it of settings whose ``task_type`` is `TASK_HEADS`, so the
heads are trained, saved and loaded with the adapter.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from peft import PeftModel
from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING
from safetensors.torch import load_file
from torch import Tensor, nn

from eptx._one_line import one_line
from eptx.errors import AdapterError, UsageError
from eptx.exporter.methods.peft_types import task_type
from eptx.exporter.methods.tuner import INFER, TASK_HEADS
from eptx.exporter.training.heads import TaskHeadBank, pool
from eptx.exporter.training.save import CONFIG, HEADS, write_heads
from eptx.files.strict_json import read_json_object


class PeftModelForTaskHeads(PeftModel):
    """A PEFT model whose forward gives the logits of each row's task.

    Attributes:
        task_heads: a linear head of each task, float32.

    Raises:
        UsageError: the settings name no labels of a task, or no pooling, or modules to save.
    """

    def __init__(self, model: nn.Module, peft_config: Any, adapter_name: str = "default", **kwargs: Any) -> None:
        labels, tasks = peft_config.task_labels or {}, peft_config.tasks
        if list(labels) != tasks or not all(labels.values()):
            raise UsageError(f"task_labels must name the labels of each task, in their order: {', '.join(tasks)}")
        if peft_config.task_head_pooling not in ("pooler", "first", "mean"):
            said = repr(peft_config.task_head_pooling)
            raise UsageError(f"task_head_pooling must be 'pooler', 'first' or 'mean', got {said}")
        if peft_config.modules_to_save:
            raise UsageError("modules_to_save cannot stand beside task heads: leave it out")
        super().__init__(model, peft_config, adapter_name, **kwargs)
        self.task_heads = TaskHeadBank(self.config.hidden_size, {task: len(labels[task]) for task in tasks})
        self.task_heads.to(next(model.parameters()).device)

    def forward(self, *args: Any, task: Tensor | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the base with the adapter, and each row's head.

        Args:
            args: of the base model.
            task: task id of each row, int64 ``[batch]``, on any device; may be left out where there is one task.
            kwargs: of the base model.

        Returns:
            ``logits``, float ``[batch, largest label count]``, zero past the labels of a row's task.

        Raises:
            UsageError: there are several tasks, and no ``task``.
        """
        rows = args[0] if args else next(value for value in kwargs.values() if isinstance(value, Tensor))
        if task is None and len(self.task_heads.tasks) > 1:
            raise UsageError(
                "the batch has no task: give each row's task id as `task` (a Trainer drops this column unless it is a "
                "TaskTrainer)"
            )
        if task is None:
            task = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        output = super().forward(*args, task=task, **kwargs)
        pooled = pool(output, kwargs.get("attention_mask"), self.active_peft_config.task_head_pooling)
        return {"logits": self.task_heads(pooled, self._used(task))}

    def _used(self, task: Tensor) -> Tensor:
        """The rows' tasks, and for -1 the one that the modules together infer."""
        similarity = getattr(self.base_model.state, "similarity", None)
        if similarity is None:
            return task
        return torch.where(task.to(similarity.device) == INFER, similarity.argmax(1), task.to(similarity.device))

    def add_adapter(self, adapter_name: str, peft_config: Any, *args: Any, **kwargs: Any) -> None:
        """Refuses: the heads are those of one adapter.

        Raises:
            UsageError: always.
        """
        raise UsageError("a model with task heads takes one adapter: make another model")

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # type: ignore[override]
        """Saves the adapter as PEFT does, and ``task_heads.safetensors`` beside it: what ``eptx export`` reads."""
        super().save_pretrained(str(save_directory), **kwargs)
        if kwargs.get("is_main_process", True):
            (name,) = self.peft_config
            write_heads(Path(save_directory, "" if name == "default" else name), self.task_heads)

    def load_adapter(  # type: ignore[override]
        self, model_id: str | os.PathLike[str], adapter_name: str, **kwargs: Any
    ) -> Any:
        """Loads the adapter as PEFT does, and its heads.

        Raises:
            AdapterError: the folder has no heads, or heads of other tasks or labels.
        """
        result = super().load_adapter(model_id, adapter_name, **kwargs)
        heads, config = (_file(model_id, name, self._split_kwargs(kwargs)[0]) for name in (HEADS, CONFIG))
        saved = read_json_object(config, error=AdapterError).get("task_labels")
        config_now: Any = self.peft_config[adapter_name]
        if saved != config_now.task_labels:
            raise AdapterError(f"{config}: task_labels are others than those of the model: make the model with {saved}")
        try:
            self.task_heads.load_tensors(load_file(heads))
        except (OSError, KeyError, RuntimeError) as error:
            raise AdapterError(f"{heads}: does not fit the adapter's task_labels: {one_line(error)}") from None
        return result


def _file(model_id: str | os.PathLike[str], name: str, hub: dict[str, Any]) -> Path:
    """A file of a local folder, or of a repository on the hub."""
    if Path(model_id).is_dir():
        return Path(model_id, hub.get("subfolder") or "", name)
    return Path(hf_hub_download(str(model_id), name, **hub))


MODEL_TYPE_TO_PEFT_MODEL_MAPPING[task_type(TASK_HEADS)] = PeftModelForTaskHeads
