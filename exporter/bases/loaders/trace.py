"""Tracing a transformers model into an ONNX graph with a free batch and length."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from eptx._one_line import one_line
from eptx.errors import NotSupportedError
from eptx.exporter.bases.weights.model_class import SUPPORTED

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_BATCH, _LENGTH = 2, 7  # neither is 0, 1, or another size of a model


def trace(model: PreTrainedModel) -> ir.Model:
    """Exports a model with transformers' ONNX exporter, neither optimized nor fused.

    Args:
        model: in evaluation mode, with no cache.

    Returns:
        the graph; its inputs and outputs have the names of transformers.

    Raises:
        NotSupportedError: the architecture takes other inputs than text or images, or the exporter cannot
            trace it.
    """
    return export_onnx(model, *_sample(model))


def export_onnx(model: Any, inputs: Mapping[str, Any], shapes: Mapping[str, Any]) -> ir.Model:
    """Exports a module, neither optimized nor fused.

    Args:
        model: has a transformers ``config``.
        inputs: examples of its arguments: tensors, or dictionaries of them, whose names are joined by dots.
        shapes: which of their axes are free, in the same structure.

    Raises:
        NotSupportedError: the exporter cannot trace it.
    """
    from transformers.exporters import exporter_onnx

    exporter: Any = exporter_onnx  # not annotated
    # unoptimized: constant folding would merge weights into products of constants (DeBERTa's relative
    # positions)
    config = exporter.OnnxConfig(dynamic_shapes=dict(shapes), optimize=False)
    try:
        exported = exporter.OnnxExporter().export(model, dict(inputs), config=config)
    except Exception as e:  # torch.export and the exporter fail with any class
        kind = getattr(model, "exported_class", type(model).__name__)
        message = f"transformers' ONNX exporter cannot export a {kind} of {model.config.model_type!r}"
        raise NotSupportedError(
            f"{message} ({one_line(e)}); export it by other means and give the .onnx base"
        ) from None
    program: ir.Model = exported.program
    return program


def _sample(model: PreTrainedModel) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Example inputs, and which of their axes are free."""
    import torch
    from torch.export import Dim

    config: Any = model.config
    parameters = inspect.signature(model.forward).parameters
    batch = Dim("batch")
    if "input_ids" in parameters and "pixel_values" in parameters:
        kind = type(model).__name__
        raise NotSupportedError(f"a {kind} reads text and images together, which is not supported; {SUPPORTED} are")
    if "input_ids" in parameters:
        # classes that answer with the text itself, moved by one, are traced for texts of which more than one token is
        # left then; the graph takes any
        shortest = 3 if getattr(config, "is_encoder_decoder", False) else None
        length = Dim("length", min=shortest, max=_longest(config))
        ids = torch.ones((_BATCH, min(_LENGTH, _longest(config))), dtype=torch.int64)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "token_type_ids" in parameters and getattr(config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = torch.zeros_like(ids)
        return inputs, {name: {0: batch, 1: length} for name in inputs}
    if "pixel_values" in parameters:
        images: Any = getattr(config, "vision_config", config)  # CLIP's classes of images have text's settings as well
        sides = getattr(images, "image_size", None)
        if sides is None:
            raise NotSupportedError(
                f"{config.model_type}: its config.json has no image_size, so its input has no shape"
            )
        height, width = sides if isinstance(sides, (list, tuple)) else (sides, sides)
        return {"pixel_values": torch.zeros((_BATCH, images.num_channels, height, width))}, {"pixel_values": {0: batch}}
    raise NotSupportedError(f"{config.model_type} takes neither text nor images; supported: {SUPPORTED}")


def _longest(config: Any) -> int:
    """The most positions that the model has embeddings for."""
    return int(getattr(config, "max_position_embeddings", None) or 1 << 20)
