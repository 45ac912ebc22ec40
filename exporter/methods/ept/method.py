"""EPT as a method of eptx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import onnx_ir as ir

from eptx.exporter.adapters.routing.routers import ModuleExperts
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from eptx.exporter.methods.ept.attach import attach
from eptx.exporter.methods.ept.fold import fold, route
from eptx.exporter.methods.ept.read import matches, read
from eptx.exporter.methods.ept.task_used import add_task_used
from eptx.exporter.methods.method import Method
from eptx.exporter.options import Mode


class Ept(Method):
    """Expert Pyramid Tuning."""

    name: ClassVar[str] = "ept"
    title: ClassVar[str] = "EPT"
    tensor_part: ClassVar[str] = ".lora_"
    modes: ClassVar[tuple[Mode, ...]] = ("static", "conditioned", "dynamic")
    flags: ClassVar[frozenset[str]] = frozenset({"--top-k"})
    matches = staticmethod(matches)
    read = staticmethod(read)
    fold = staticmethod(fold)
    attach = staticmethod(attach)

    def task_experts(self, adapter: EptAdapter) -> Mapping[str, ModuleExperts]:
        return {name: self._module_experts(adapter, module) for name, module in adapter.modules.items()}

    @staticmethod
    def _module_experts(adapter: EptAdapter, module: EptModule) -> ModuleExperts:
        routes = [route(module, task, adapter.top_k) for task in range(len(adapter.tasks))]
        choices = (zip(map(int, experts), map(float, weights), strict=True) for experts, weights in routes)
        return ModuleExperts(module.sizes, tuple(map(tuple, choices)))

    def task_used(self, editor: GraphEditor) -> ir.Value | None:
        return add_task_used(editor) if editor.similarities else None


METHOD = Ept()
