"""EPT as a method of eptx."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.methods.ept.attach import attach
from eptx.exporter.methods.ept.fold import fold
from eptx.exporter.methods.ept.plot import plot
from eptx.exporter.methods.ept.read import matches, read
from eptx.exporter.methods.ept.task_used import add_task_used
from eptx.exporter.methods.method import Method


class Ept(Method):
    """Expert Pyramid Tuning."""

    name: ClassVar[str] = "ept"
    title: ClassVar[str] = "EPT"
    tensor_parts: ClassVar[tuple[str, ...]] = (".lora_",)
    has_router: ClassVar[bool] = True
    flags: ClassVar[frozenset[str]] = frozenset({"--top-k"})
    matches = staticmethod(matches)
    read = staticmethod(read)
    fold = staticmethod(fold)
    attach = staticmethod(attach)
    plot = staticmethod(plot)

    def task_used(self, editor: GraphEditor) -> ir.Value | None:
        return add_task_used(editor) if editor.similarities else None


METHOD = Ept()
