"""PEFT's other methods as one method of eptx."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from eptx.errors import UsageError
from eptx.exporter.methods.method import Method
from eptx.exporter.methods.peft.fold import fold
from eptx.exporter.methods.peft.read import matches, own_tensors, read


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

    def complete(self, adapter: Any, base: Path | None, class_name: str | None) -> Any:
        if base is None or class_name is None:
            kinds = " and ".join(sorted({str(each.config["peft_type"]) for each in adapter.checkpoints.values()}))
            raise UsageError(f"what {kinds} makes of a layer, the base says: give its transformers folder too")
        from eptx.exporter.methods.peft.complete import complete

        return complete(adapter, base, class_name)


METHOD = Peft()
