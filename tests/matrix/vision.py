"""Models of images."""

from __future__ import annotations

from typing import Any

from tests.matrix.row import Row, images

SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "image_size": 16,
    "patch_size": 8,
}

ROWS: tuple[Row, ...] = (Row("ViT", "vision", "ViTModel", ("ViTConfig", SMALL), images(16)),)
