"""The steps of transformers' image processors, class by class: the pixels are the same to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from eptx.exporter.bundle.image import _OtherStepsError, _settings
from eptx.runtime.requests.images.decode import decode
from eptx.runtime.requests.images.process import process
from tests.support.vit import picture

_EDGE = {"shortest_edge": 40}
#: A name -> the class, and settings that make small images.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViT", {"size": {"height": 32, "width": 40}}),
    "ViT, lanczos": ("ViT", {"size": {"height": 32, "width": 40}, "resample": 1, "do_normalize": False}),
    "ViT, nearest": ("ViT", {"size": 24, "resample": 0, "do_rescale": False, "image_mean": 0.5, "image_std": 2.0}),
    "ViT, box": ("ViT", {"size": 24, "resample": 4, "do_rescale": False, "do_normalize": False}),
    "ViT, as it is": ("ViT", {"do_resize": False, "do_rescale": True, "rescale_factor": 1 / 127}),
    "DeiT": ("DeiT", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 31}}),
    "BEiT": ("Beit", {"size": {"height": 40, "width": 40}, "crop_size": 32, "do_center_crop": True}),
    "CLIP": ("CLIP", {"size": _EDGE, "crop_size": 33}),
    "CLIP, old": ("CLIP", {"size": 40, "crop_size": 40}),
    "CLIP, larger crop": ("CLIP", {"size": _EDGE, "crop_size": {"height": 61, "width": 44}}),
    "CLIP, longest edge": ("CLIP", {"size": _EDGE | {"longest_edge": 50}, "crop_size": 32}),
    "SigLIP": ("Siglip", {"size": {"height": 32, "width": 32}}),
    "ChineseCLIP": ("ChineseCLIP", {"size": _EDGE, "crop_size": 33}),
    "DINOv2": ("Bit", {"size": _EDGE, "crop_size": 32}),
    "PVT": ("Pvt", {"size": {"height": 32, "width": 32}}),
    "ConvNeXT": ("ConvNext", {"size": {"shortest_edge": 33}, "crop_pct": 0.9}),
    "ConvNeXT, 384": ("ConvNext", {}),
    "MobileViT": ("MobileViT", {"size": _EDGE, "crop_size": 32}),
    "MobileViT, not flipped": ("MobileViT", {"size": _EDGE, "crop_size": 48, "do_flip_channel_order": False}),
    "LeViT": ("Levit", {"size": _EDGE, "crop_size": 40}),
    "PoolFormer": ("PoolFormer", {"size": _EDGE, "crop_size": 40}),
    "PoolFormer, square": ("PoolFormer", {"size": {"height": 40, "width": 40}, "crop_size": 40}),
    "PoolFormer, sides": ("PoolFormer", {"size": {"height": 40, "width": 50}, "crop_size": 40}),
    "MobileNetV1": ("MobileNetV1", {"size": _EDGE, "crop_size": 32}),
    "MobileNetV2": ("MobileNetV2", {"size": _EDGE, "crop_size": 32}),
    "SegFormer": ("Segformer", {"size": {"height": 32, "width": 32}}),
    "BLIP": ("Blip", {"size": {"height": 32, "width": 32}}),
}


@pytest.mark.parametrize("name", CASES)
def test_pixels(name: str, tmp_path: Path) -> None:
    kind, settings = CASES[name]
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**settings)
    processor.save_pretrained(tmp_path)
    how = _settings(tmp_path)
    for seed, size in enumerate([(120, 90), (90, 121), (9, 7), (40, 40), (31, 200), (40, 77)]):
        modes = ("RGB", "RGBA", "L", "LA", "P") if processor.do_convert_rgb else ("RGB",)
        image = picture(*size, modes[seed % len(modes)], seed)
        wanted = processor(image, return_tensors="np")["pixel_values"][0]
        found = process(decode(image, "it", white=how.alpha == "white"), how, "it")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.asarray(wanted, np.float32))


def test_files_of_older_releases(tmp_path: Path) -> None:
    """A feature extractor, whose file leaves out what its class knows."""
    old = {"feature_extractor_type": "ViTFeatureExtractor", "size": 40, "do_normalize": True, "image_mean": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    image = picture(50, 31)
    found = process(decode(image, "it", white=False), _settings(tmp_path), "it")
    np.testing.assert_array_equal(found, processor(image, return_tensors="np")["pixel_values"][0])


def test_settings_of_a_processor_of_texts_too(tmp_path: Path) -> None:
    inner = transformers.CLIPImageProcessorPil(size=_EDGE, crop_size=32)
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": inner.to_dict(), "processor_class": "CLIPProcessor"})
    )
    image = picture(50, 31)
    found = process(decode(image, "it", white=True), _settings(tmp_path), "it")
    np.testing.assert_array_equal(found, inner(image, return_tensors="np")["pixel_values"][0])


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("EfficientNet", {}, "eptx does not know the steps of a EfficientNetImageProcessor"),
        ("Detr", {}, "eptx does not know the steps of a DetrImageProcessor"),
        ("ViT", {"size": {"max_height": 30, "max_width": 30}}, "eptx does not know a size of max_height, max_width"),
        ("ViT", {"do_pad": True, "pad_size": {"height": 50, "width": 50}}, "eptx does not surround images"),
        ("ViT", {"image_mean": [0.5], "image_std": [0.5]}, "its images have 1 channels"),
    ],
)
def test_steps_that_are_not_known(kind: str, settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    getattr(transformers, f"{kind}ImageProcessorPil")(**settings).save_pretrained(tmp_path)
    with pytest.raises(_OtherStepsError, match=said):
        _settings(tmp_path)
