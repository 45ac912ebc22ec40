"""Has PEFT put an adapter on its base, as it was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from eptx._one_line import one_line, shown, some
from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.adapters.checkpoint import AGAIN, CONFIG, WEIGHTS, Checkpoint
from eptx.exporter.quiet import quiet

_PREFIX = "base_model."
#: The adapter's name in PEFT.
_NAME = "default"


def put_on(model: Any, checkpoint: Checkpoint) -> dict[str, BaseTunerLayer]:
    """PEFT's layers, by their names in the model, in float64 and filled from the adapter's file.

    Args:
        model: the class that was trained, with what the adapter brings beside its own tensors; it is changed.
        checkpoint: the adapter.

    Raises:
        AdapterError: the adapter does not fit the model: a tensor that no parameter takes, or a parameter without one.
        NotSupportedError: a setting that the installed PEFT does not know.
    """
    config = _config(checkpoint)
    where = f"{checkpoint.name}: PEFT cannot put it on a {type(model).__name__}"
    tensors = {_full(name): _tensor(array) for name, array in checkpoint.tensors.items()}
    try:
        with quiet():
            peft = get_peft_model(model, config, adapter_name=_NAME)
            result: Any = set_peft_model_state_dict(peft, tensors, _NAME)
    except Exception as error:  # PEFT's methods raise any class
        raise AdapterError(f"{where}: {one_line(error)}") from None
    if result.unexpected_keys:
        extra = _plain(result.unexpected_keys[0])
        raise AdapterError(
            f"{checkpoint.name}/{WEIGHTS}: {extra} is of no module of the base: give the one it was trained on"
        )
    # what PEFT would save: it makes the rest itself, of a seed or the base
    whole = get_peft_model_state_dict(peft, adapter_name=_NAME, save_embedding_layers=False)
    lacking = sorted({_plain(name) for name in whole} - {*map(_plain, tensors), *map(_plain, checkpoint.saved)})
    if lacking:
        raise AdapterError(f"{checkpoint.name}/{WEIGHTS} lacks {some(lacking)}: {AGAIN}")
    peft.eval().to(torch.float64)
    for layer in peft.modules():
        if isinstance(vars(layer).get("dtype"), torch.dtype):  # some layers keep the type that they were made in
            layer.dtype = torch.float64
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}


def _config(checkpoint: Checkpoint) -> Any:
    given = {key: value for key, value in checkpoint.config.items() if key != "runtime_config"}
    try:
        with quiet():
            kind: Any = PeftConfig  # not annotated
            config = kind.from_peft_type(**kind.check_kwargs(**given))
    except Exception as error:  # configurations raise whatever their values provoke
        raise AdapterError(f"{checkpoint.name}/{CONFIG}: PEFT cannot read it: {one_line(error)}") from None
    unknown = [key for key, value in given.items() if value and not hasattr(config, key) and key not in _OURS]
    if unknown:
        said = f"{unknown[0]}={shown(given[unknown[0]])}"
        raise NotSupportedError(f"{checkpoint.name}/{CONFIG}: the installed PEFT does not know {said}: update peft")
    config.inference_mode = True
    config.task_type = config.modules_to_save = None  # what is brought whole goes another way
    if hasattr(config, "trainable_token_indices"):
        config.trainable_token_indices = None
    return config


#: What eptx's training writes beside PEFT's settings.
_OURS = ("tasks", "task_labels", "task_head_pooling", "peft_version")


def _full(name: str) -> str:
    """A tensor's name in PEFT's files."""
    return name if name.startswith(_PREFIX) else f"{_PREFIX}model.{name}"


def _plain(key: str) -> str:
    """A tensor's name in the class, or of the adapter's own."""
    return key.removeprefix(f"{_PREFIX}model.").replace(f".{_NAME}", "").replace(".base_layer.", ".")


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
