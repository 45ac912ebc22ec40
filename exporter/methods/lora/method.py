"""LoRA as a method of eptx."""

from __future__ import annotations

from typing import Any, ClassVar

from eptx.errors import NotSupportedError
from eptx.exporter.methods.lora.adapter import joined, reads_base, restored
from eptx.exporter.methods.lora.attach import attach
from eptx.exporter.methods.lora.fold import fold, shift
from eptx.exporter.methods.lora.read import matches, read
from eptx.exporter.methods.lora.settings import TITLES
from eptx.exporter.methods.method import Method, TaskByTask
from eptx.exporter.options import ExportOptions
from eptx.manifest.names import FLOAT_PRECISIONS


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

    def check(self, adapter: Any, options: ExportOptions) -> None:
        """Refuses to quantize a base that a start has changed, next to its update: the two are of one weight.

        Raises:
            NotSupportedError: the mode is not static, the precision is of integers, and there is one.
        """
        if options.mode == "static" or options.precision in FLOAT_PRECISIONS:
            return
        for task, modules in adapter.by_task.items():
            began = next((module.start for module in modules.values() if module.start), None)
            if began is not None:
                raise NotSupportedError(
                    f"task {task!r}: {TITLES[began]} changed the base, which --precision {options.precision} cannot "
                    f"follow in mode {options.mode}: use --precision fp32 or --mode static"
                )


METHOD = Lora()
