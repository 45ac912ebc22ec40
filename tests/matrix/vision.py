"""Models of images, and of images or sound beside texts."""

from __future__ import annotations

from typing import Any

from tests.matrix import encoders
from tests.matrix.row import Arrays, Row, images, pairs, patches, spectrograms, texts

SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "image_size": 16,
    "patch_size": 8,
}
_SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}
_CONVNEXT = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "image_size": 16, "patch_size": 4}
_STAGES = {
    "image_size": 32,
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "hidden_sizes": [8, 16],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
}
_HIERA = {
    "embed_dim": 8,
    "image_size": [32, 32],
    "num_query_pool": 1,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "query_stride": [2, 2],
    "masked_unit_size": [4, 4],
    "masked_unit_attention": [True, False],
}
#: Class -> settings, and the side of an image.
_BARE: dict[str, tuple[dict[str, Any], int]] = {
    "DeiT": (SMALL, 16),
    "ViTMSN": (SMALL, 16),
    "ViTMAE": (SMALL | {"mask_ratio": 0.0}, 16),
    "Dinov2": (SMALL | {"mlp_ratio": 2}, 16),
    "Dinov2WithRegisters": (SMALL | {"mlp_ratio": 2, "num_register_tokens": 2}, 16),
    "DINOv3ViT": (SMALL | {"num_register_tokens": 2, "num_attention_heads": 2}, 16),
    "DINOv3ConvNext": ({"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1], "image_size": 32}, 32),
    "Swin": (_SWIN, 16),
    "Swinv2": (_SWIN, 16),
    "Beit": (SMALL | {"use_relative_position_bias": True, "layer_scale_init_value": 0.5}, 16),
    "Data2VecVision": (
        SMALL | {"use_relative_position_bias": True, "layer_scale_init_value": 0.5, "initializer_range": 0.2},
        16,
    ),
    "ConvNext": (_CONVNEXT | {"layer_scale_init_value": 0.5}, 16),
    "ConvNextV2": (_CONVNEXT, 16),
    "Pvt": (_STAGES | {"patch_sizes": [4, 2], "sequence_reduction_ratios": [2, 1]}, 32),
    "PvtV2": (_STAGES | {"patch_sizes": [7, 3], "sr_ratios": [2, 1]}, 32),
    "Hiera": (_HIERA, 32),
    "IJepa": (SMALL, 16),
}
_NAMED = {"DINOv3ViT": "DINOv3", "Dinov2": "DINOv2", "Dinov2WithRegisters": "DINOv2 with registers"}
_TOWER = {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 1, "num_attention_heads": 3}
_TEXT = _TOWER | {"vocab_size": 60, "max_position_embeddings": 20, "projection_dim": 12, "pad_token_id": 0}
_IMAGE = _TOWER | {"image_size": 16, "patch_size": 8, "projection_dim": 12}
_TOWERS = {"text_config": _TEXT | {"eos_token_id": 2}, "vision_config": _IMAGE, "projection_dim": 12}
_SIGLIP = {"text_config": _TEXT | {"projection_size": 24}, "vision_config": _IMAGE}
_SIGLIP_2 = _TOWER | {"num_patches": 4, "patch_size": 8}
_ALT = {"text_config": encoders.SMALL | {"project_dim": 12}, "vision_config": _IMAGE, "projection_dim": 12}
_CLAP_SOUND = {
    "spec_size": 16,
    "num_mel_bins": 8,
    "hidden_size": 16,
    "patch_embeds_hidden_size": 8,
    "window_size": 2,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "patch_size": 4,
    "patch_stride": [4, 4],
    "projection_dim": 12,
}
_CLAP = {
    "text_config": encoders.SMALL | {"projection_dim": 12},
    "audio_config": _CLAP_SOUND,
    "projection_dim": 12,
}
_CHINESE = {"text_config": _TEXT, "vision_config": _IMAGE, "projection_dim": 12}


def _bare(kind: str, settings: dict[str, Any], side: int) -> Row:
    return Row(_NAMED.get(kind, kind), "vision", f"{kind}Model", (f"{kind}Config", settings), images(side))


def _classifier(kind: str, settings: dict[str, Any], side: int) -> Row:
    """A head that the adapter brings: PEFT has no task type for images, so it is named as its guides name it."""
    config = (f"{kind}Config", settings | {"num_labels": 3})
    name, peft = f"{_NAMED.get(kind, kind)}, classifier, bare base", {"modules_to_save": ["classifier"]}
    trained, base = f"{kind}ForImageClassification", f"{kind}Model"
    return Row(name, "vision", trained, config, images(side), base=base, peft=peft, adapters=2)


def _towers(kind: str, settings: dict[str, Any]) -> Row:
    return Row(kind, "two towers", f"{kind}Model", (f"{kind}Config", settings), pairs(60, 16), kind="two towers")


def _texts_and_sound(rows: int) -> Arrays:
    return {**texts(60)(rows), **spectrograms("input_features", 1, 32, 8)(rows)}


ROWS: tuple[Row, ...] = (
    Row("ViT", "vision", "ViTModel", ("ViTConfig", SMALL), images(16)),
    Row(
        "ViT, its patches too",
        "vision",
        "ViTModel",
        ("ViTConfig", SMALL),
        images(16),
        targets=("q_proj", "v_proj", "projection"),
    ),
    *(_bare(kind, settings, side) for kind, (settings, side) in _BARE.items()),
    _classifier("ViT", SMALL, 16),
    *(_classifier(kind, *_BARE[kind]) for kind in ("DeiT", "Dinov2", "Swin")),
    _towers("CLIP", _TOWERS),
    _towers("Siglip", _SIGLIP),
    _towers("ChineseCLIP", _CHINESE),
    _towers("MetaClip2", _TOWERS),
    _towers("AltCLIP", _ALT),
    Row("CLAP", "two towers", "ClapModel", ("ClapConfig", _CLAP), _texts_and_sound, kind="two towers"),
    Row(
        "CLIP, projected texts",
        "text",
        "CLIPTextModelWithProjection",
        ("CLIPTextConfig", _TEXT | {"eos_token_id": 2}),
        texts(60),
    ),
    Row("SigLIP, texts", "text", "SiglipTextModel", ("SiglipTextConfig", _TEXT | {"projection_size": 24}), texts(60)),
    Row("CLIP, images", "vision", "CLIPVisionModel", ("CLIPVisionConfig", _IMAGE), images(16)),
    Row("CLIP, projected images", "vision", "CLIPVisionModelWithProjection", ("CLIPVisionConfig", _IMAGE), images(16)),
    Row("CLIP, image classes", "vision", "CLIPForImageClassification", ("CLIPConfig", _TOWERS), images(16)),
    Row("SigLIP, images", "vision", "SiglipVisionModel", ("SiglipVisionConfig", _IMAGE), images(16)),
    Row("SigLIP, image classes", "vision", "SiglipForImageClassification", ("SiglipConfig", _SIGLIP), images(16)),
    Row("SigLIP 2", "vision", "Siglip2VisionModel", ("Siglip2VisionConfig", _SIGLIP_2), patches(4, 192)),
)
