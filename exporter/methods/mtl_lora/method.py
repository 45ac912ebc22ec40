"""MTL-LoRA as a method of eptx."""

from __future__ import annotations

from typing import ClassVar

from eptx.exporter.methods.mixture import MixtureMethod
from eptx.exporter.methods.mtl_lora.convert import CONVERSION
from eptx.exporter.methods.mtl_lora.read import matches, read
from eptx.exporter.methods.released import Conversion


class MtlLora(MixtureMethod):
    """MTL-LoRA."""

    name: ClassVar[str] = "mtl_lora"
    title: ClassVar[str] = "MTL-LoRA"
    tensor_part: ClassVar[str] = ".lora_"
    matches = staticmethod(matches)
    read = staticmethod(read)
    conversions: ClassVar[tuple[Conversion, ...]] = (CONVERSION,)


METHOD = MtlLora()
