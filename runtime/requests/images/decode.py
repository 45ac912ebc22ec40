"""One image, in whatever form a caller has it, as red, green and blue of 8 bits."""

from __future__ import annotations

import io
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eptx._one_line import one_line
from eptx.errors import RequestError
from eptx.files.safe_files import read_bytes

Pixels = npt.NDArray[np.uint8]

#: The formats that are read, where Pillow was built with them. Others that it knows call programs of the system (EPS).
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
#: An image of more pixels is refused before it is read: a file of some kilobytes may hold billions.
MOST_PIXELS = 100_000_000
_MOST_BYTES = 512 << 20
#: Pillow warns of large images in a filter of the whole process; they are refused here instead.
_OPENING = threading.Lock()


def decode(image: Any, name: str, *, white: bool) -> Pixels:
    """The pixels [height, width, 3] of an image, upright as its EXIF data say. Of several frames, the first.

    Args:
        image: a path, the bytes of a file, an image of Pillow, or an array uint8 [height, width], or [height, width,
            channels] or [channels, height, width] of 1 (gray), 3 (RGB) or 4 channels (RGBA).
        name: what messages call it.
        white: whether what is transparent becomes white; else transparency is left out.

    Raises:
        RequestError: it is none of these, cannot be read, or is too large.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        image = Image.fromarray(_checked(image, name))
    elif isinstance(image, str | os.PathLike):
        path = Path(image)
        name = f"{name} ({path.name})"
        image = _open(read_bytes(path, error=RequestError, limit=_MOST_BYTES), name)
    elif isinstance(image, bytes | bytearray | memoryview):
        image = _open(bytes(image), name)
    elif not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise RequestError(f"{name} is a {kind}; give a path, the bytes of a file, an image of Pillow, or an array")
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise RequestError(f"{name} is {width} x {height}; eptx reads images of at most {MOST_PIXELS} pixels")
    try:
        return _rgb(image, name, white)
    except RequestError:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow's readers raise
        raise RequestError(f"{name} cannot be read: {one_line(error)}") from None


def _open(data: bytes, name: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.init()
            return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise RequestError(f"{name} is no image of a format that eptx reads: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:  # of twice as many pixels as Pillow warns of
        raise RequestError(f"{name} is too large: eptx reads images of at most {MOST_PIXELS} pixels") from None
    except Exception as error:
        raise RequestError(f"{name} cannot be read: {one_line(error)}") from None


def _rgb(image: Any, name: str, white: bool) -> Pixels:
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow would cut values above 255; of images in color it reads the upper byte
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise RequestError(f"{name} has values of 32 bits (mode {image.mode}); convert it to 8 bits first")
    if white and ("A" in image.getbands() or image.info.get("transparency") is not None):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.asarray(image.convert("RGB"))


def _checked(array: Any, name: str) -> Pixels:
    """An array that Pillow takes: [height, width], or with channels at the end."""
    if array.dtype != np.uint8:
        raise RequestError(
            f"{name} is an array of {array.dtype}; an image is uint8, 0 to 255, and what a model reads itself is given "
            "by name: {'pixel_values': array}"
        )
    if array.ndim == 2 and array.size:
        return np.ascontiguousarray(array)
    channels = (1, 3, 4)
    last, first = (array.ndim == 3 and array.shape[axis] in channels for axis in (2, 0))
    if last == first or not array.size:
        why = "which axis holds its channels?" if last else "its channels are 1, 3 or 4"
        raise RequestError(f"{name} is an array {list(array.shape)}: {why} Give [height, width, channels]")
    pixels: Pixels = np.ascontiguousarray(array if last else np.moveaxis(array, 0, 2))
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
