"""How a base's image processor makes rows of images, in the steps that `eptx.bundle.Image` has.

transformers' processor says it: it knows the defaults of its classes, and reads `preprocessor_config.json` in every
form that it ever had. Of a class that works in other steps nothing is said, and the bundle is given arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eptx._one_line import one_line
from eptx.bundle import Image, Resize
from eptx.errors import UsageError
from eptx.exporter.bases import BaseGraph
from eptx.exporter.quiet import quiet
from eptx.manifest.names import CHANNELS, FILTERS, PIXELS
from eptx.progress import note

#: Where an image processor's settings are; the second is that of a processor of texts and images.
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
#: What a processor does; a class that has its own of these works in other steps, unless it is one of `_OWN`.
_STEPS = (
    "preprocess",
    "_preprocess_image_like_inputs",
    "_preprocess",
    "_prepare_image_like_inputs",
    "process_image",
    "convert_to_rgb",
    "resize",
    "center_crop",
    "rescale",
    "normalize",
)


class _OtherStepsError(Exception):
    """What a processor does besides."""


def processor_files(graph: BaseGraph, adapters: Sequence[Path]) -> dict[str, Path]:
    """The files of the image processor that an adapter's trainer saved; they stand in the place of the base's."""
    home = next(filter(_has_processor, adapters), None) if _sees(graph) else None
    return {} if home is None else {name: home / name for name in PROCESSOR_FILES if (home / name).is_file()}


def image_settings(graph: BaseGraph, adapters: Sequence[Path]) -> Image | None:
    """How images are read: as the processor that an adapter's trainer saved says, else the base's. None where nothing
    says it in steps that eptx has.

    Args:
        graph: of the base.
        adapters: the adapter's folders.

    Raises:
        UsageError: the adapters were trained with different image processors.
    """
    saved = [folder for folder in adapters if _has_processor(folder)]
    homes = saved or [folder for folder in (graph.folder,) if folder is not None and _has_processor(folder)]
    if not homes or not _sees(graph):
        return None
    try:
        first, *others = map(_settings, homes)
    except _OtherStepsError as error:
        note(f"the bundle is given arrays, not images: {error}")
        return None
    if any(other != first for other in others):
        raise UsageError(
            f"{' and '.join(map(str, homes))} were saved with different image processors, and a bundle has one: export "
            "each by itself"
        )
    return first


def _has_processor(folder: Path) -> bool:
    return any((folder / name).is_file() for name in PROCESSOR_FILES)


def _sees(graph: BaseGraph) -> bool:
    """Whether a model reads images of three channels."""
    read = next((value for value in graph.model.graph.inputs if value.name == PIXELS), None)
    return read is not None and read.shape is not None and len(read.shape) == 4 and read.shape[1] == CHANNELS


def _settings(folder: Path) -> Image:
    """What one folder says.

    Raises:
        _OtherStepsError: its processor works in steps that eptx has not.
    """
    from transformers import AutoImageProcessor
    from transformers.image_processing_backends import PilBackend

    with quiet():
        try:
            load: Any = AutoImageProcessor.from_pretrained
            processor = load(folder, backend="pil", local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever its files provoke
            raise _OtherStepsError(f"its image processor cannot be read: {one_line(error)}") from None
    kind = type(processor).__name__.removesuffix("Pil")
    if not isinstance(processor, PilBackend):
        raise _OtherStepsError(f"a {kind} does not work on Pillow and numpy")
    plain = all(getattr(type(processor), name) is getattr(PilBackend, name) for name in _STEPS)
    if not plain and kind not in _OWN:
        raise _OtherStepsError(f"eptx does not know the steps of a {kind}")
    if getattr(processor, "do_pad", None):
        raise _OtherStepsError(f"eptx does not surround images, as this {kind} does (do_pad)")
    return (_plain if plain else _OWN[kind])(processor)


def _plain(processor: Any) -> Image:
    resize = _resize(processor.size, processor.resample) if processor.do_resize else None
    normalizes = bool(processor.do_normalize)
    return Image(
        alpha="white" if processor.do_convert_rgb else "drop",
        resize=resize,
        crop=_crop(processor.crop_size) if processor.do_center_crop else None,
        scale=float(processor.rescale_factor) if processor.do_rescale else None,
        mean=_channels(processor.image_mean) if normalizes else None,
        std=_channels(processor.image_std) if normalizes else None,
        flip=False,
    )


def _resize(size: Any, resample: Any) -> Resize:
    said = {name: value for name, value in dict(size).items() if value is not None}
    filters = FILTERS[int(resample if resample is not None else FILTERS.index("bilinear"))]
    if {*said} == {"height", "width"}:
        return Resize(said["height"], said["width"], None, None, filters)
    if {*said} <= {"shortest_edge", "longest_edge"} and "shortest_edge" in said:
        return Resize(None, None, said["shortest_edge"], said.get("longest_edge"), filters)
    raise _OtherStepsError(f"eptx does not know a size of {', '.join(said)}")


def _crop(size: Any) -> tuple[int, int]:
    if not size.height or not size.width:
        raise _OtherStepsError("its crop_size has no height and width")
    return size.height, size.width


def _channels(values: Any) -> tuple[float, ...]:
    found = tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),) * CHANNELS
    if len(found) != CHANNELS:
        raise _OtherStepsError(f"its images have {len(found)} channels")
    return found


def _convnext(processor: Any) -> Image:
    """Below 384 the middle of a larger image, else the whole image."""
    plain, edge = _plain(processor), processor.size.shortest_edge
    if plain.resize is None:
        return plain
    if not edge or processor.size.longest_edge or plain.crop is not None:
        raise _OtherStepsError("a ConvNextImageProcessor has a shortest_edge, and does not crop")
    if edge >= 384:
        return replace(plain, resize=replace(plain.resize, height=edge, width=edge, shortest_edge=None))
    larger = replace(plain.resize, shortest_edge=int(edge / processor.crop_pct))
    return replace(plain, resize=larger, crop=(edge, edge))


def _poolformer(processor: Any) -> Image:
    plain, part = _plain(processor), processor.crop_pct
    if plain.resize is None or part is None:
        return plain
    edge, height, width = plain.resize.shortest_edge, plain.resize.height, plain.resize.width
    if edge is None and height == width:
        edge, height, width = height, None, None
    high, wide, short = (None if size is None else int(size / part) for size in (height, width, edge))
    return replace(plain, resize=Resize(high, wide, short, None, plain.resize.filter))


def _levit(processor: Any) -> Image:
    plain = _plain(processor)
    if plain.resize is None or plain.resize.shortest_edge is None:
        return plain
    larger = int((256 / 224) * plain.resize.shortest_edge)
    return replace(plain, resize=replace(plain.resize, shortest_edge=larger, longest_edge=None))


def _mobilevit(processor: Any) -> Image:
    """Its channels are turned, and never normalized."""
    return replace(_plain(processor), mean=None, std=None, flip=bool(processor.do_flip_channel_order))


def _segformer(processor: Any) -> Image:
    return replace(_plain(processor), crop=None)


#: What classes with steps of their own do of images.
_OWN: dict[str, Callable[[Any], Image]] = {
    "BeitImageProcessor": _plain,  # its own steps are of maps
    "MobileNetV2ImageProcessor": _plain,
    "SegformerImageProcessor": _segformer,
    "ConvNextImageProcessor": _convnext,
    "LevitImageProcessor": _levit,
    "MobileViTImageProcessor": _mobilevit,
    "PoolFormerImageProcessor": _poolformer,
}
