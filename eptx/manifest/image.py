"""The section ``image`` of ``eptx.json``: how images become pixels."""

from __future__ import annotations

from dataclasses import dataclass

from eptx.files.fields import COUNTS, Fields
from eptx.manifest.names import ALPHA, CHANNELS, FILTERS


@dataclass(frozen=True)
class Resize:
    """The size that an image gets: `height` and `width`, or that of its shorter edge, which keeps its form.

    Attributes:
        height, width: in pixels; None: `shortest_edge` says it.
        shortest_edge: in pixels. longest_edge: with it, how long the longer edge may get.
        filter: Pillow's, one of `FILTERS`.
    """

    height: int | None
    width: int | None
    shortest_edge: int | None
    longest_edge: int | None
    filter: str


@dataclass(frozen=True)
class Image:
    """How images become rows of ``pixel_values``, in this order; the base's image processor says it.

    Attributes:
        alpha: what becomes of transparency, one of `ALPHA`: it is left out, or the image is laid on white.
        resize: the size that it gets; None: its own.
        crop: height and width of the part in the middle that is kept; what is smaller is surrounded by 0. None: all.
        scale: what its values, 0 to 255, are multiplied by; None: nothing.
        mean, std: of each channel; the first is subtracted, then by the second is divided. Both None: nothing.
        flip: whether the channels stand as blue, green and red.
    """

    alpha: str
    resize: Resize | None
    crop: tuple[int, int] | None
    scale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    flip: bool


def read_image(f: Fields) -> Image:
    """What a manifest says of images.

    Raises:
        BundleError: a field is missing, of the wrong type or out of range, or two contradict each other.
    """
    crop = f.array("crop") if f.present("crop") else None
    if crop is not None and (len(crop) != 2 or not all(type(edge) is int and 0 < edge < COUNTS for edge in crop)):
        raise f.bad("crop must be [height, width]")
    image = Image(
        alpha=f.choice("alpha", ALPHA),
        resize=f.child("resize").read(_resize) if f.present("resize") else None,
        crop=None if crop is None else (crop[0], crop[1]),
        scale=f.number("scale") if f.present("scale") else None,
        mean=_channels(f, "mean") if f.present("mean") else None,
        std=_channels(f, "std") if f.present("std") else None,
        flip=f.boolean("flip"),
    )
    if (image.mean is None) != (image.std is None):
        raise f.bad("mean and std are there together")
    if image.std is not None and not all(value > 0 for value in image.std):
        raise f.bad("std must be above 0")
    return image


def _channels(f: Fields, name: str) -> tuple[float, ...]:
    values = f.numbers(name)
    if len(values) != CHANNELS:
        raise f.bad(f"{name} must be a number for each of {CHANNELS} channels")
    return values


def _resize(f: Fields) -> Resize:
    edges = {
        name: f.count(name, least=1) if f.present(name) else None
        for name in ("height", "width", "shortest_edge", "longest_edge")
    }
    resize = Resize(**edges, filter=f.choice("filter", FILTERS))
    by_sides = (resize.height is not None, resize.width is not None) == (True, True)
    by_edge = resize.shortest_edge is not None
    if by_sides == by_edge or (by_edge and (resize.height, resize.width) != (None, None)):
        raise f.bad("must have either height and width, or shortest_edge")
    if by_sides and resize.longest_edge is not None:
        raise f.bad("longest_edge goes with shortest_edge")
    return resize
