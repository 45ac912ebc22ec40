"""Task heads beside an adapter: ``task_heads.safetensors``. The same heads give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from eptx.errors import AdapterError
from eptx.exporter.training.heads import TaskHeadBank
from eptx.files.strict_json import read_json_object

CONFIG, HEADS = "adapter_config.json", "task_heads.safetensors"


def save_heads(
    folder: Path, heads: TaskHeadBank, pooling: str, *, labels: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Put task heads beside an adapter that something else saved: PEFT, or ``eptx.convert``.

    Args:
        folder: the adapter's; its ``adapter_config.json`` then says what the heads read, and the tasks by id.
        heads: of all tasks of the adapter, by id.
        pooling: what the heads read: ``pooler``, ``first`` or ``mean``.
        labels: names of the labels, ``{task: names}``.

    Raises:
        AdapterError: the folder has no configuration.
    """
    config = read_json_object(folder / CONFIG, error=AdapterError)
    config |= {"tasks": heads.tasks, "task_head_pooling": pooling}
    if labels is not None:
        config["task_labels"] = {task: list(names) for task, names in labels.items()}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_heads(folder, heads)


def write_heads(folder: Path, heads: TaskHeadBank) -> None:
    """As bytes of our own, for the library would create a file that only its owner may read."""
    tensors = heads.tensors()
    ordered = {key: tensors[key].detach().to(torch.float32).cpu().contiguous().clone() for key in sorted(tensors)}
    (folder / HEADS).write_bytes(save(ordered, metadata={"format": "pt"}))
