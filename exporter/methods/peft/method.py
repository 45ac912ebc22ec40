"""PEFT's other methods as one method of eptx."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.checkpoint import CONFIG
from eptx.exporter.methods.constant import Constant
from eptx.exporter.methods.peft.adapter import FullUpdate
from eptx.exporter.methods.peft.read import matches, own_tensors, read
from eptx.exporter.methods.peft.types import TUNERS
from eptx.exporter.options import ExportOptions


class Peft(Constant):
    """PEFT's other methods."""

    name: ClassVar[str] = "peft"
    title: ClassVar[str] = "PEFT"
    tensor_part: ClassVar[str] = ""
    last_choice: ClassVar[bool] = True
    matches = staticmethod(matches)
    own_tensors = staticmethod(own_tensors)
    read = staticmethod(read)

    def is_called(self, name: str) -> bool:
        return name == self.name or name.upper() in TUNERS

    def check(self, adapter: Any, options: ExportOptions) -> None:
        """Refuses to attach updates that have no factors smaller than the weight.

        Raises:
            NotSupportedError: the mode is not static, and there is one.
        """
        if options.mode == "static":
            return
        for task, updates in adapter.by_task.items():
            if any(isinstance(update, FullUpdate) for update in updates.values()):
                files = adapter.checkpoints[task]
                raise NotSupportedError(
                    f"{files.name}/{CONFIG}: peft_type {files.config['peft_type']} changes weights by matrices of full "
                    "rank here, which hold as much as the weights themselves: use --mode static"
                )

    def complete(self, adapter: Any, base: Path | None, class_name: str | None) -> Any:
        if base is None or class_name is None:
            kinds = " and ".join(sorted({str(each.config["peft_type"]) for each in adapter.checkpoints.values()}))
            raise UsageError(f"what {kinds} makes of a layer, the base says: give its transformers folder too")
        from eptx.exporter.methods.peft.complete import complete

        return complete(adapter, base, class_name)


METHOD = Peft()
