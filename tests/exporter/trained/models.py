"""Small models, and adapters on them that PEFT itself trains and saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model

from eptx.exporter.quiet import quiet

WIDTH = 12
_TEXT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 18,
    "max_position_embeddings": 16,
}
_CONFIGS: dict[str, Any] = {
    "bert": lambda **more: transformers.BertConfig(**_TEXT, **more),
    "llama": lambda **more: transformers.LlamaConfig(**_TEXT, num_key_value_heads=2, **more),
    "vit": lambda **more: transformers.ViTConfig(
        **{name: _TEXT[name] for name in list(_TEXT)[1:5]}, image_size=8, patch_size=4, num_channels=3, **more
    ),
}


def write_base(kind: str, class_name: str, folder: Path, **more: Any) -> Path:
    """A random model of a class, saved; its weights are large enough for every one of them to matter."""
    torch.manual_seed(len(class_name))
    model = getattr(transformers, class_name)(_CONFIGS[kind](**more))
    _widen(model)
    with quiet():
        model.save_pretrained(folder)
    return folder


def peft_model(base: Path, class_name: str, seed: int = 0, labels: int | None = None, **config: Any) -> Any:
    """PEFT's own model on a class of transformers, with random adapter, heads and magnitudes, in float64."""
    torch.manual_seed(seed)
    more = {} if labels is None else {"num_labels": labels}
    with quiet():
        loaded = getattr(transformers, class_name).from_pretrained(base, ignore_mismatched_sizes=True, **more)
        model: Any = get_peft_model(loaded, LoraConfig(init_lora_weights=False, **config))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.data.normal_(0, 0.3)
            elif "magnitude" in name:
                parameter.data.mul_(1.3)
    return model.eval()


def save(model: Any, folder: Path) -> Path:
    with quiet():
        model.save_pretrained(folder)
    return folder


def inputs(kind: str, rows: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    if kind == "vit":
        return {"pixel_values": rng.normal(size=(rows, 3, 8, 8))}
    mask = (np.arange(7) < (7 - 2 * np.arange(rows))[:, None]).astype(np.int64)
    return {"input_ids": rng.integers(3, 50, (rows, 7)) * mask, "attention_mask": mask}


def outputs_of(model: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a model of PEFT or transformers returns in float64: all tensors by their names."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with torch.no_grad():
        result = model.double()(**tensors)
    return {name: value.numpy() for name, value in result.items() if isinstance(value, torch.Tensor)}


def _widen(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
