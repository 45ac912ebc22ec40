"""MoRE as a method of eptx."""

from __future__ import annotations

from typing import ClassVar

from eptx.exporter.methods.mixture import MixtureMethod
from eptx.exporter.methods.more.convert import CONVERSION
from eptx.exporter.methods.more.read import matches, read
from eptx.exporter.methods.released import Conversion


class More(MixtureMethod):
    """MoRE."""

    name: ClassVar[str] = "more"
    title: ClassVar[str] = "MoRE"
    tensor_part: ClassVar[str] = ".lora_"
    matches = staticmethod(matches)
    read = staticmethod(read)
    conversions: ClassVar[tuple[Conversion, ...]] = (CONVERSION,)


METHOD = More()
