"""MOELoRA as a method of eptx."""

from __future__ import annotations

from typing import ClassVar

from eptx.exporter.methods.mixture import MixtureMethod
from eptx.exporter.methods.moelora.convert import CONVERSION
from eptx.exporter.methods.moelora.read import matches, read
from eptx.exporter.methods.released import Conversion


class MoeLora(MixtureMethod):
    """MOELoRA."""

    name: ClassVar[str] = "moelora"
    title: ClassVar[str] = "MOELoRA"
    tensor_part: ClassVar[str] = ".lora_"
    matches = staticmethod(matches)
    read = staticmethod(read)
    conversions: ClassVar[tuple[Conversion, ...]] = (CONVERSION,)


METHOD = MoeLora()
