"""HydraLoRA as a method of eptx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from eptx.exporter import ops
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.delta import Delta
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.methods.hydra_lora.adapter import HydraLoraAdapter
from eptx.exporter.methods.hydra_lora.convert import CONVERSION
from eptx.exporter.methods.hydra_lora.read import KINDS, matches, read
from eptx.exporter.methods.released import Conversion
from eptx.exporter.methods.routed import RoutedUpdates


class HydraLora(RoutedUpdates):
    """HydraLoRA, and LoRAMoE, whose experts have an A each."""

    name: ClassVar[str] = "hydra_lora"
    title: ClassVar[str] = "HydraLoRA"
    tensor_part: ClassVar[str] = ".lora_"
    matches = staticmethod(matches)
    read = staticmethod(read)
    conversions: ClassVar[tuple[Conversion, ...]] = (CONVERSION,)

    def is_called(self, name: str) -> bool:
        return name in KINDS.values()

    def attach_router(
        self, adapter: HydraLoraAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings, /
    ) -> None:
        for name, site in sites.items():
            module = adapter.modules[name]
            own = (
                editor.constant(f"{name}.lora_route", module.route, exact=True),
                editor.constant(f"{name}.lora_A", np.concatenate(list(module.a)).T),
                editor.constant(f"{name}.lora_B", module.scale * np.swapaxes(module.b, 1, 2).astype(np.float64)),
            )
            for place in (site, *site.also):
                editor.adapt(editor.place(site, place, per_row=False), Delta(ops.TokenMixtureDelta, (), own))


METHOD = HydraLora()
