"""How a bundle reads images, compared with the image processor that was trained with: its files, and pixels of hard
images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eptx.bundle import Bundle
from eptx.errors import EptxError
from eptx.exporter.quiet import quiet
from eptx.exporter.validation.contents.files.copied import alone, difference
from eptx.runtime.requests.images.reader import ImageReader
from eptx.runtime.validation.check import Check

#: Where transformers keeps an image processor. The exporter has its own list; this one stands apart on purpose.
_FILES = ("preprocessor_config.json", "processor_config.json")
_NAME = "eptx.json: image"
#: Of values of a size about 1.
_TOLERANCE = 1e-5
#: Width and height: wide, tall, small, as models read them, and sizes that no edge divides.
_SIZES = ((500, 375), (333, 1001), (31, 200), (7, 9), (224, 224), (640, 479))


def compare_images(bundle: Bundle, base: Path, adapters: Sequence[Path]) -> list[Check]:
    """Compares the processor's files, and the pixels that the runtime makes, with what transformers makes.

    Args:
        bundle: the bundle.
        base: the base's transformers folder.
        adapters: the adapter's folders: what a trainer saved there counts before the base's.

    Raises:
        BundleError, BaseModelError: a file cannot be read.
    """
    if alone(bundle):
        return []
    sees = any(spec.name == "pixel_values" for spec in bundle.manifest.inputs)
    saved = [folder for folder in adapters if any((folder / name).is_file() for name in _FILES)] if sees else []
    home = next(iter(saved), base)
    checks = list(_files(bundle, home))
    if not sees:
        return checks
    return checks + [_pixels(bundle, folder) for folder in saved or [base]]


def _files(bundle: Bundle, home: Path) -> Iterator[Check]:
    for name in _FILES:
        found, wanted = bundle.file(name), home / name
        if found is not None and wanted.is_file():
            yield Check(name, "compared", difference(found, wanted))
        elif found is not None:
            yield Check(name, "compared", "is not of the base, which has no such file")
        elif wanted.is_file():
            yield Check(name, "compared", "is missing; the base has it")


def _pixels(bundle: Bundle, home: Path) -> Check:
    from transformers import AutoImageProcessor

    said = any((home / name).is_file() for name in _FILES)
    if bundle.manifest.image is None:
        why = "eptx did not know the steps of its image processor" if said else "the base has no image processor"
        return Check(_NAME, "unchecked", why=f"the bundle is given arrays: {why}")
    if not said:
        return Check(_NAME, "compared", "is there; the base has no image processor")
    try:
        with quiet():
            load: Any = AutoImageProcessor.from_pretrained
            processor = load(home, backend="pil", local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever its files provoke
        return Check(_NAME, "compared", f"is there; transformers cannot read the image processor: {error}")
    return Check(_NAME, "compared", next(_differences(ImageReader(bundle.manifest), processor), None))


def _differences(reader: ImageReader, processor: Any) -> Iterator[str]:
    for image in _images(bool(processor.do_convert_rgb)):
        shown = f"an image of {image.width} x {image.height} ({image.mode})"
        wanted = processor(image, return_tensors="np")["pixel_values"]
        try:
            found = reader(image)["pixel_values"]
        except EptxError as error:
            if wanted.shape[2:] == tuple(reader.size):
                yield f"{shown} is refused: {error}"
            continue  # the model does not read it either
        if found.shape != wanted.shape:
            yield f"{shown} becomes {list(found.shape[1:])}; the base's makes {list(wanted.shape[1:])} of it"
        elif not np.allclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
            yield f"{shown} has pixels that differ by {np.abs(found - wanted).max():.2g} from the base's"


def _images(converts: bool) -> Iterator[Image.Image]:
    """Images of every frequency; where the processor makes RGB of others, gray and transparent ones too."""
    rng = np.random.default_rng(0)
    for place, size in enumerate(_SIZES):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 4), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        noise = rng.integers(-40, 40, (size[1], size[0], 4))
        image = Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))
        mode = ("RGB", "RGBA", "L")[place % 3] if converts else "RGB"
        yield image.convert(mode)
