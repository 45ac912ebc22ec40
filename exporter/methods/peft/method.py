"""PEFT's other methods as one method of eptx."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.methods.method import Method
from eptx.exporter.methods.peft.adapter import FullUpdate
from eptx.exporter.methods.peft.attach import attach
from eptx.exporter.methods.peft.fold import fold, shift
from eptx.exporter.methods.peft.read import matches, own_tensors, read
from eptx.exporter.methods.peft.types import TUNERS
from eptx.exporter.options import ExportOptions


class Peft(Method):
    """PEFT's other methods."""

    name: ClassVar[str] = "peft"
    title: ClassVar[str] = "PEFT"
    tensor_part: ClassVar[str] = ""
    last_choice: ClassVar[bool] = True
    matches = staticmethod(matches)
    own_tensors = staticmethod(own_tensors)
    read = staticmethod(read)
    fold = staticmethod(fold)
    shift = staticmethod(shift)
    attach = staticmethod(attach)

    def check(self, adapter: Any, options: ExportOptions) -> None:
        """Refuses to attach updates that have no factors smaller than the weight.

        Raises:
            NotSupportedError: the mode is not static, and there is one.
        """
        if options.mode == "static":
            return
        for task, modules in adapter.by_task.items():
            for name, update in modules.items():
                if isinstance(update, FullUpdate):
                    kind = TUNERS[str(adapter.checkpoints[task].config["peft_type"])].title
                    raise NotSupportedError(
                        f"task {task!r}: {kind} changes {name} by a matrix of full rank, which holds as much as a "
                        "weight of its own: use --mode static"
                    )

    def complete(self, adapter: Any, base: Path | None, class_name: str | None) -> Any:
        if base is None or class_name is None:
            kinds = " and ".join(sorted({str(each.config["peft_type"]) for each in adapter.checkpoints.values()}))
            raise UsageError(f"what {kinds} makes of a layer, the base says: give its transformers folder too")
        from eptx.exporter.methods.peft.complete import complete

        return complete(adapter, base, class_name)


METHOD = Peft()
