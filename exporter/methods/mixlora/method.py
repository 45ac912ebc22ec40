"""MixLoRA as a method of eptx."""

from __future__ import annotations

from typing import ClassVar

from eptx.exporter.methods.method import Method
from eptx.exporter.methods.mixlora.attach import attach
from eptx.exporter.methods.mixlora.convert import CONVERSION
from eptx.exporter.methods.mixlora.read import matches, read
from eptx.exporter.methods.released import Conversion
from eptx.exporter.options import ExportOptions, Mode


class MixLora(Method):
    """MixLoRA, whose tokens choose feed-forwards: no weights hold a mix of these, so it is dynamic only."""

    name: ClassVar[str] = "mixlora"
    title: ClassVar[str] = "MixLoRA"
    tensor_part: ClassVar[str] = ".moe_"
    modes: ClassVar[tuple[Mode, ...]] = ("dynamic",)
    matches = staticmethod(matches)
    read = staticmethod(read)
    attach = staticmethod(attach)
    conversions: ClassVar[tuple[Conversion, ...]] = (CONVERSION,)

    def serves_base(self, options: ExportOptions) -> bool:
        """Routers know no task, and so none without an adapter."""
        return False


METHOD = MixLora()
