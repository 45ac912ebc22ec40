"""Example inputs of a class of transformers, and which of their axes are free, by what its ``forward`` takes.

A text is [batch, length], a question with several answers [batch, choices, length], an image [batch, channels, height,
width], a recording [batch, samples], a spectrogram as large as the configuration says. A class that reads two of
these, such as CLIP, has a batch of each: its texts need not be as many as its images.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eptx.errors import BaseModelError, NotSupportedError
from eptx.files.strict_json import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Sizes of the free axes while a graph is traced: none is 0, 1, or another size of a model. Two batches differ.
_BATCHES, _LENGTH, _CHOICES = (2, 3), 7, 5
_FRAMES = 50
#: A recording is shortened by strides before anything is read in it; so many steps are left of the shortest.
_LEAST_STEPS = 4
_UNLIMITED = 1 << 20


class _Axis(NamedTuple):
    """A free axis: its name, its size while a graph is traced, and the largest and smallest of requests."""

    name: str
    size: int
    most: int = _UNLIMITED
    least: int = 0


class _Input(NamedTuple):
    """One input: its axes but the first, and of what it is made while a graph is traced: integers, floats."""

    axes: tuple[_Axis | int, ...]
    fill: int | float


Reads = dict[str, _Input]


class Sample(NamedTuple):
    """Example inputs by name, and their free axes: as the exporter takes them, and their names by number."""

    inputs: dict[str, Any]
    shapes: dict[str, Any]
    axes: dict[str, dict[int, str]]


def samples(model: PreTrainedModel, folder: Path, unread: frozenset[str] = frozenset()) -> Iterator[Sample]:
    """Example inputs, best first: the next ones are for a class that refuses these.

    Args:
        model: a class of transformers.
        folder: of the base; its ``preprocessor_config.json`` may say how large images are.
        unread: inputs to leave out.

    Raises:
        NotSupportedError: the class takes none of these inputs.
        BaseModelError: nothing says how large an image is.
    """
    taken = set(inspect.signature(model.forward).parameters) - unread
    found = [reads for kind in _KINDS if (reads := kind(model, taken, folder))]
    if not found:
        kind = type(model).__name__
        raise NotSupportedError(f"a {kind} takes neither texts, images nor sound, which eptx can export it for")
    if len(found) > 1:
        yield _made(found, [_Axis(f"{name}s", size) for name, size in zip(map(_named, found), _BATCHES, strict=False)])
    yield _made(found, [_Axis("batch", _BATCHES[0])] * len(found))


def _named(reads: Reads) -> str:
    """What one row of these inputs is."""
    first = next(iter(reads))
    return {"input_ids": "text", "pixel_values": "image"}.get(first, "sound")


def _made(found: list[Reads], batches: list[_Axis]) -> Sample:
    import torch
    from torch.export import Dim

    dims: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    names: dict[str, dict[int, str]] = {}
    for reads, batch in zip(found, batches, strict=True):
        for name, value in reads.items():
            axes = (batch, *value.axes)
            for axis in axes:
                if isinstance(axis, _Axis):
                    dims.setdefault(axis.name, Dim(axis.name, min=axis.least, max=axis.most))
            sizes = [axis.size if isinstance(axis, _Axis) else axis for axis in axes]
            inputs[name] = torch.full(sizes, value.fill)
            names[name] = {i: axis.name for i, axis in enumerate(axes) if isinstance(axis, _Axis)}
    shapes = {name: {i: dims[axis] for i, axis in own.items()} for name, own in names.items()}
    return Sample(inputs, shapes, names)


def _text(model: Any, taken: set[str], folder: Path) -> Reads:
    if "input_ids" not in taken:
        return {}
    config = getattr(model.config, "text_config", model.config)
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:  # XLNet says -1
        most = _UNLIMITED
    # a class whose decoder reads the text, moved by one, is traced for texts of which more than one token is left; the
    # graph takes any
    least = 3 if getattr(model.config, "is_encoder_decoder", False) and "decoder_input_ids" in taken else 0
    axes: tuple[_Axis, ...] = (_Axis("length", min(_LENGTH, most), most, least),)
    if type(model).__name__.endswith("ForMultipleChoice"):
        axes = (_Axis("choices", _CHOICES), *axes)
    reads = {"input_ids": _Input(axes, 1)}
    if "attention_mask" in taken:
        reads["attention_mask"] = _Input(axes, 1)
    if "token_type_ids" in taken and getattr(config, "type_vocab_size", 0) > 1:
        reads["token_type_ids"] = _Input(axes, 0)
    if "bbox" in taken:  # where each token stands on its page
        reads["bbox"] = _Input((*axes, 4), 0)
    return reads


def _image(model: Any, taken: set[str], folder: Path) -> Reads:
    if "pixel_values" not in taken:
        return {}
    if "spatial_shapes" in taken:
        raise NotSupportedError(
            f"a {type(model).__name__} reads images as patches, as many as an image has (spatial_shapes), which eptx "
            "does not export: take a base of a fixed image size (of SigLIP 2, one whose config.json has model_type "
            "siglip)"
        )
    config = getattr(model.config, "vision_config", model.config)  # CLIP's classes have text's settings as well
    height, width = _image_size(config, folder)
    return {"pixel_values": _Input((getattr(config, "num_channels", 3), height, width), 0.0)}


def _image_size(config: Any, folder: Path) -> tuple[int, int]:
    """As the configuration says, else as the image processor beside it makes images."""
    size = getattr(config, "image_size", None)
    file = folder / "preprocessor_config.json"
    if size is None and file.is_file():
        settings = read_json_object(file, error=BaseModelError)
        size = settings.get("crop_size") if settings.get("do_center_crop") else None
        size = size or settings.get("size")
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        size = (size.get("height", edge), size.get("width", edge))
    sides = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise BaseModelError(
            f"{folder.name}: neither config.json (image_size) nor preprocessor_config.json (size) says how large an "
            "image is; put the base's preprocessor_config.json there"
        )
    return sides[0], sides[1]


def _sound(model: Any, taken: set[str], folder: Path) -> Reads:
    name = next((name for name in ("input_values", "input_features") if name in taken), None)
    if name is None:
        return {}
    config = getattr(model.config, "audio_config", model.config)
    axes = _spectrogram(config, name)
    reads: Reads = {name: _Input(axes, 0.0)}
    if "attention_mask" in taken and "input_ids" not in taken and isinstance(axes[0], _Axis):
        reads["attention_mask"] = _Input(axes[:1], 1)
    return reads


def _spectrogram(config: Any, name: str) -> tuple[_Axis | int, ...]:
    """The axes behind the first: of a recording, or of what an architecture makes of it."""
    bins, positions = getattr(config, "num_mel_bins", None), getattr(config, "max_source_positions", None)
    spec = getattr(config, "spec_size", None)
    if spec and bins:  # CLAP lays a spectrogram out as a square
        return 1, spec * (spec // bins), bins
    if positions and bins and name == "input_features":  # Whisper reads 30 s, in steps of two frames
        return bins, 2 * positions
    if bins and getattr(config, "max_length", None) and name == "input_values":  # AST
        return config.max_length, bins
    if name == "input_features":
        width = getattr(config, "feature_projection_input_dim", None) or bins
        return _Axis("frames", _FRAMES, least=_LEAST_STEPS), *((width,) if width else ())
    least, factor = _LEAST_STEPS, 1
    for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
        least, factor = (least - 1) * stride + kernel, factor * stride
    return (_Axis("samples", least + _FRAMES * factor, least=least),)


_KINDS: tuple[Callable[[Any, set[str], Path], Reads], ...] = (_text, _image, _sound)
