"""A tiny random ViT with adapters of image classifiers, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from PIL import Image

from eptx.exporter.quiet import quiet

SIDE = 32
#: Task -> its labels.
CLASSES = {"pets": ["cat", "dog", "bird"], "score": ["value"]}


def write_vit(folder: Path) -> Path:
    """A base without a classifier."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViTConfig(**sizes, image_size=SIDE, patch_size=8, initializer_range=0.5)
    with quiet():
        transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def write_adapter(base: Path, folder: Path, task: str) -> Any:
    """A LoRA adapter of one task as its trainer leaves it, and the model of transformers with it."""
    names = CLASSES[task]
    torch.manual_seed(len(names))
    named = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    with quiet():
        loaded = transformers.ViTForImageClassification.from_pretrained(base, **named)
        lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        lora.modules_to_save = ["classifier"]
        model = get_peft_model(loaded, lora).eval()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.data.normal_(0, 1)
        model.save_pretrained(folder)
        model.get_base_model().config.save_pretrained(folder)
    return model.get_base_model()


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Coarse spots with noise on them."""
    rng = np.random.default_rng(seed)
    spots = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-30, 30, (height, width, 4))
    return Image.fromarray(np.clip(np.asarray(spots) + noise, 0, 255).astype(np.uint8)).convert(mode)
