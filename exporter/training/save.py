"""Adapter folders as eptx's training writes and reads them.

``adapter_config.json``, ``adapter_model.safetensors`` (tensor names of the released code) and, with task
heads, ``task_heads.safetensors``. The same adapter gives the same bytes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save
from torch import Tensor, nn

from eptx.errors import AdapterError
from eptx.exporter.methods.peft_types import registered
from eptx.exporter.training.heads import TaskHeadBank
from eptx.files.strict_json import read_json_object

CONFIG, WEIGHTS, HEADS = "adapter_config.json", "adapter_model.safetensors", "task_heads.safetensors"


def add_adapter(base: nn.Module, config: PeftConfig) -> PeftModel:
    """``peft.get_peft_model`` without a warning of transformers that only PEFT can heed."""
    registered()  # PEFT knows the tuners once they are imported
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return get_peft_model(base, config)


def save_adapter(model: PeftModel, folder: Path, *, heads: TaskHeadBank | None = None, base_name: str = "") -> None:
    """Write the model's active adapter into ``folder`` (created when missing).

    Args:
        model: a PEFT model with an adapter of a method that eptx has a tuner of.
        folder: where to write.
        heads: task heads; the adapter's ``task_head_pooling`` must then say what they read.
        base_name: what to record as ``base_model_name_or_path``: a hub name, not a path of this machine.
    """
    name = model.active_adapter
    config: dict[str, Any] = model.peft_config[name].to_dict()
    if heads is not None and not config.get("task_head_pooling"):
        raise ValueError("task heads need task_head_pooling in the adapter's configuration")
    config |= {"base_model_name_or_path": base_name, "inference_mode": True}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True, default=_as_json)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    _write(folder / WEIGHTS, tensors)
    if heads is not None:
        _write(folder / HEADS, heads.tensors())


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
    _write(folder / HEADS, heads.tensors())


def load_adapter(base: nn.Module, folder: Path) -> tuple[PeftModel, TaskHeadBank | None]:
    """Put a saved adapter on its base model; returns it with its task heads, or None where it brings none.

    Raises:
        AdapterError: the folder holds no adapter of eptx's training, or its tensors do not fit.
    """
    settings = read_json_object(folder / CONFIG, error=AdapterError)
    kind = settings.pop("peft_type", None)
    if kind not in registered():
        raise AdapterError(f"{folder / CONFIG}: peft_type is {kind!r}; this loader takes {' and '.join(registered())}")
    for written_by_peft in ("peft_version", "base_model_name_or_path"):
        settings.pop(written_by_peft, None)
    model = add_adapter(base, PEFT_TYPE_TO_CONFIG_MAPPING[kind](**settings))
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = load_file(folder / WEIGHTS)
    if expected.keys() != tensors.keys():
        odd = sorted(expected.keys() ^ tensors.keys())[0]
        raise AdapterError(f"{folder / WEIGHTS}: does not fit the base model, {odd} is on one side only")
    wrong = [key for key, tensor in tensors.items() if tensor.shape != expected[key].shape]
    if wrong:
        raise AdapterError(f"{folder / WEIGHTS}: {wrong[0]} has shape {list(tensors[wrong[0]].shape)}")
    set_peft_model_state_dict(model, tensors)
    model.eval()
    if not (folder / HEADS).exists():
        return model, None
    saved = load_file(folder / HEADS)
    tasks = [task for task in settings["tasks"] if f"{task}.weight" in saved]
    return model, TaskHeadBank.from_tensors(saved, tasks)


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """As bytes of our own, for the library would create a file that only its owner may read."""
    ordered = {key: tensors[key].detach().to(torch.float32).contiguous().clone() for key in sorted(tensors)}
    path.write_bytes(save(ordered, metadata={"format": "pt"}))


def _as_json(value: object) -> object:
    if isinstance(value, set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
