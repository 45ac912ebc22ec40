"""From an image of 8 bits to what a model reads, in the steps that `eptx.bundle.Image` names.

The numbers are those of transformers' image processors on Pillow and numpy (``backend="pil"``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eptx.bundle import Image, Resize
from eptx.errors import RequestError
from eptx.manifest.names import FILTERS
from eptx.runtime.requests.images.decode import MOST_PIXELS, Pixels


def process(pixels: Pixels, how: Image, name: str) -> npt.NDArray[np.float32]:
    """An image [height, width, 3] as float32 [3, height, width].

    Args:
        pixels: the image.
        how: it is read.
        name: what messages call it.

    Raises:
        RequestError: a side is so much longer than the other that the resized image would be too large.
    """
    if how.resize is not None:
        pixels = _resized(pixels, how.resize, name)
    if how.crop is not None:
        pixels = _cropped(pixels, *how.crop)
    values: npt.NDArray[np.float32] = pixels.astype(np.float32)
    if how.scale is not None:
        values = (pixels.astype(np.float64) * how.scale).astype(np.float32)
    if how.mean is not None and how.std is not None:
        mean, std = (np.array(own, np.float32) for own in (how.mean, how.std))
        values = (values - mean) / std
    values = np.moveaxis(values, 2, 0)
    return np.ascontiguousarray(values[::-1] if how.flip else values)


def _resized(pixels: Pixels, how: Resize, name: str) -> Pixels:
    from PIL import Image as Pillow

    height, width = _size(pixels.shape[0], pixels.shape[1], how)
    if width * height > MOST_PIXELS:
        raise RequestError(f"{name} would be resized to {width} x {height}, more than {MOST_PIXELS} pixels: cut it")
    resized = Pillow.fromarray(pixels).resize((width, height), resample=Pillow.Resampling(FILTERS.index(how.filter)))
    return np.asarray(resized)


def _size(height: int, width: int, how: Resize) -> tuple[int, int]:
    """Height and width behind the step."""
    if how.shortest_edge is None:
        return how.height or 1, how.width or 1
    short, long = sorted((height, width))
    edge, exact = how.shortest_edge, None
    if how.longest_edge is not None and long / short * edge > how.longest_edge:
        exact = how.longest_edge * short / long
        edge = round(exact)
    if how.longest_edge is not None and short == edge:
        return height, width
    other = max(1, int((edge if exact is None else exact) * long / short))
    edge = max(1, edge)
    return (edge, other) if height <= width else (other, edge)


def _cropped(pixels: Pixels, height: int, width: int) -> Pixels:
    """The middle of an image; what is smaller gets 0 around it."""
    for axis, wanted in ((0, height), (1, width)):
        size = pixels.shape[axis]
        if size >= wanted:
            start = (size - wanted) // 2
            pixels = pixels.take(range(start, start + wanted), axis)
        else:
            before = -(-(wanted - size) // 2)
            around = [(0, 0)] * 3
            around[axis] = (before, wanted - size - before)
            pixels = np.pad(pixels, around)
    return pixels
