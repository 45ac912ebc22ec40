"""The images of a request as the model reads them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from eptx.bundle import Manifest
from eptx.errors import NotSupportedError, RequestError
from eptx.manifest.names import PIXELS
from eptx.runtime.outputs import Array
from eptx.runtime.requests.images.decode import decode
from eptx.runtime.requests.images.process import process


class PillowImage(Protocol):
    """An image of Pillow, which need not be installed."""

    @property
    def mode(self) -> str:
        """What a pixel holds."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""


#: A path, the bytes of a file, an array uint8, or an image of Pillow; or several.
OneImage = str | os.PathLike[str] | bytes | Array | PillowImage
Images = OneImage | Sequence[OneImage]


def reads_images(manifest: Manifest) -> bool:
    """Whether a row of a bundle is an image, and nothing else."""
    names = {spec.name for spec in manifest.inputs}
    return PIXELS in names and "input_ids" not in names


class ImageReader:
    """Images to ``pixel_values``, as `eptx.bundle.Image` of a bundle says.

    Args:
        manifest: of the bundle.

    Attributes:
        size: height and width of what the model reads; a name where it takes any.

    Raises:
        RequestError: the bundle reads no images, or does not say how.
        NotSupportedError: Pillow is not installed.
    """

    def __init__(self, manifest: Manifest) -> None:
        spec = next((spec for spec in manifest.inputs if spec.name == PIXELS), None)
        if spec is None:
            raise RequestError(f"this bundle reads no images; it has {', '.join(s.name for s in manifest.inputs)}")
        if manifest.image is None:
            raise RequestError(
                f"this bundle does not say how an image becomes {PIXELS}; make them with its base's image processor, "
                f"and give {{'{PIXELS}': array}}"
            )
        try:
            importlib.import_module("PIL.Image")
        except ImportError:
            raise NotSupportedError("images need Pillow; pip install 'eptx[images]'") from None
        self._how = manifest.image
        self.size = spec.shape[2:]

    def __call__(self, images: Images) -> dict[str, Array]:
        """``pixel_values``, float32 [images, 3, height, width].

        Args:
            images: one, or a sequence of them: each a path, the bytes of a file, an image of Pillow, or an array uint8
                of height, width and channels (none, 1, 3 or 4). An array [images, height, width, channels] is several.

        Raises:
            RequestError: one cannot be read, or does not get the size that the model reads.
        """
        rows = _rows(images)
        if not rows:
            raise RequestError("the batch of images is empty")
        made = [self._pixels(image, f"image {place}") for place, image in enumerate(rows)]
        if len({pixels.shape for pixels in made}) > 1:
            raise RequestError("the images of the batch become of different sizes; run each by itself")
        return {PIXELS: np.stack(made)}

    def _pixels(self, image: Any, name: str) -> Array:
        pixels = process(decode(image, name, white=self._how.alpha == "white"), self._how, name)
        for size, wanted in zip(pixels.shape[1:], self.size, strict=True):
            if isinstance(wanted, int) and size != wanted:
                got, read = (" x ".join(map(str, sizes)) for sizes in (pixels.shape[1:], self.size))
                raise RequestError(f"{name} becomes {got} (height x width); the model reads {read}")
        return pixels


def _rows(images: Any) -> Sequence[Any]:
    one = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike)
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, Mapping) or one or not isinstance(images, Sequence):
        return [images]
    return images
