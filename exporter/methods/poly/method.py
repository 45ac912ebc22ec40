"""Poly as a method of eptx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from eptx.exporter.adapters.routing.routers import ModuleExperts, mixed
from eptx.exporter.methods.constant import Constant
from eptx.exporter.methods.poly.adapter import PolyAdapter
from eptx.exporter.methods.poly.read import matches, read


class Poly(Constant):
    """Poly, and MHR, which is Poly with several splits."""

    name: ClassVar[str] = "poly"
    title: ClassVar[str] = "Poly"
    tensor_part: ClassVar[str] = ".poly_"
    matches = staticmethod(matches)
    read = staticmethod(read)

    def task_experts(self, adapter: PolyAdapter) -> Mapping[str, ModuleExperts]:
        """The skills; of several splits, their mean."""
        return {name: mixed(module.weights().mean(1)) for name, module in adapter.modules.items()}


METHOD = Poly()
