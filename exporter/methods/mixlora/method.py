"""MixLoRA as a method of eptx."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from eptx.errors import UsageError
from eptx.exporter.adapters.checkpoint import CONFIG
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

    def complete(self, adapter: Any, base: Path | None, class_name: str | None) -> Any:
        if not adapter.act_fn:
            return adapter
        if base is None or class_name is None:
            raise UsageError(
                f"{CONFIG}: act_fn={adapter.act_fn!r} needs the base's transformers folder, which says whether that is "
                "its activation"
            )
        from eptx.exporter.methods.mixlora.complete import check_activation

        check_activation(adapter, base, class_name)
        return adapter

    def serves_base(self, options: ExportOptions) -> bool:
        """Routers know no task, and so none without an adapter."""
        return False


METHOD = MixLora()
