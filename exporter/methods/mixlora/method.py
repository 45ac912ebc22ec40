"""MixLoRA as a method of eptx."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from eptx.errors import UsageError
from eptx.exporter.adapters.checkpoint import CONFIG
from eptx.exporter.adapters.routing.routers import Router
from eptx.exporter.methods.mixlora.adapter import MixLoraAdapter
from eptx.exporter.methods.mixlora.attach import attach
from eptx.exporter.methods.mixlora.convert import CONVERSION
from eptx.exporter.methods.mixlora.read import matches, read
from eptx.exporter.methods.released import Conversion
from eptx.exporter.methods.routed import Routed
from eptx.exporter.options import Mode


class MixLora(Routed):
    """MixLoRA, whose tokens choose feed-forwards: no weights hold a mix of these, so it is never static."""

    name: ClassVar[str] = "mixlora"
    title: ClassVar[str] = "MixLoRA"
    tensor_part: ClassVar[str] = ".moe_"
    modes: ClassVar[tuple[Mode, ...]] = ("conditioned", "dynamic")
    has_router: ClassVar[str] = "feed-forward"
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

    def router(self, adapter: MixLoraAdapter) -> Router:
        return Router(None, 1, adapter.experts, adapter.top_k)

    def routed(self, adapter: MixLoraAdapter) -> tuple[str, ...]:
        return tuple(first for first, *_ in adapter.feed_forwards)


METHOD = MixLora()
