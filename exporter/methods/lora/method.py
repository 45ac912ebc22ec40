"""LoRA as a method of eptx."""

from __future__ import annotations

from typing import ClassVar

from eptx.exporter.methods.lora.adapter import joined, reads_base, restored
from eptx.exporter.methods.lora.attach import attach
from eptx.exporter.methods.lora.fold import fold, shift
from eptx.exporter.methods.lora.read import matches, read
from eptx.exporter.methods.method import Method, TaskByTask


class LoraTasks(TaskByTask):
    """Each task of LoRA is an adapter of its own."""

    joined = staticmethod(joined)
    reads_base = staticmethod(reads_base)
    restored = staticmethod(restored)


class Lora(Method):
    """PEFT's LoRA."""

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    tensor_part: ClassVar[str] = ".lora_"
    last_choice: ClassVar[bool] = True  # other methods' released codes call themselves LORA
    matches = staticmethod(matches)
    read = staticmethod(read)
    fold = staticmethod(fold)
    shift = staticmethod(shift)
    attach = staticmethod(attach)
    task_by_task: ClassVar[TaskByTask] = LoraTasks()


METHOD = Lora()
