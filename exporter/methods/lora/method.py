"""LoRA as a method of eptx."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.adapter import natural_key
from eptx.exporter.adapters.changes import LowRank
from eptx.exporter.adapters.checkpoint import CONFIG
from eptx.exporter.methods.constant import Constant
from eptx.exporter.methods.lora.adapter import joined, reads_base, restored
from eptx.exporter.methods.lora.convert import CONVERSIONS
from eptx.exporter.methods.lora.read import matches, read
from eptx.exporter.methods.lora.settings import TITLES
from eptx.exporter.methods.method import TaskByTask
from eptx.exporter.methods.released import Conversion
from eptx.exporter.options import ExportOptions
from eptx.manifest.names import FLOAT_PRECISIONS


class LoraTasks(TaskByTask):
    """Each task of LoRA is an adapter of its own."""

    joined = staticmethod(joined)
    reads_base = staticmethod(reads_base)
    restored = staticmethod(restored)


class Lora(Constant):
    """PEFT's LoRA."""

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    tensor_part: ClassVar[str] = ".lora_"
    telling: ClassVar[tuple[str, ...]] = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
    banks: ClassVar[tuple[str, str]] = ("lora_A", "lora_B")
    last_choice: ClassVar[bool] = True  # other methods' released codes call themselves LORA
    matches = staticmethod(matches)
    read = staticmethod(read)
    task_by_task: ClassVar[TaskByTask] = LoraTasks()
    conversions: ClassVar[tuple[Conversion, ...]] = CONVERSIONS

    def check(self, adapter: Any, options: ExportOptions) -> None:
        """Refuses what the rows of a batch cannot each have of their own.

        That is an expert's weight, and a base in integers that a start has changed: it and the update are one weight.

        Raises:
            NotSupportedError: the mode is not static, and there is one.
        """
        if options.mode == "static":
            return
        _refuse_stacks(adapter)
        if options.precision in FLOAT_PRECISIONS:
            return
        for task, modules in adapter.by_task.items():
            began = next((module.start for module in modules.values() if module.start), None)
            if began is not None:
                raise NotSupportedError(
                    f"task {task!r}: {TITLES[began]} changed the base, which --precision {options.precision} cannot "
                    f"follow in mode {options.mode}: use --precision fp32 or --mode static"
                )

    def complete(self, adapter: Any, base: Path | None, class_name: str | None) -> Any:
        if not adapter.unplaced:
            return adapter
        if base is None or class_name is None:
            files = next(iter(adapter.unplaced.values()))
            raise UsageError(
                f"{files.name}/{CONFIG}: target_parameters needs the base's transformers folder, whose class says "
                "which parameters these are"
            )
        from eptx.exporter.methods.lora.complete import complete

        return complete(adapter, base, class_name)


def _refuse_stacks(adapter: Any) -> None:
    """Refuses factors of experts' weights: a graph sorts the tokens of all rows by expert, whatever their task."""
    for task, changes in adapter.changes.items():
        stacks = [name for name, change in changes.items() if isinstance(change, LowRank) and change.a.ndim > 2]
        if stacks:
            first = min(stacks, key=natural_key)  # PEFT saves them in any order
            raise NotSupportedError(
                f"task {task!r}: target_parameters in its {CONFIG} names {first}, and the rows of a batch cannot "
                "each have their own experts: export one adapter with --mode static"
            )


METHOD = Lora()
