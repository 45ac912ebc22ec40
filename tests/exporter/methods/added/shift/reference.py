"""The trained Shift model: our PEFT tuner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from eptx.errors import AdapterError
from eptx.exporter.methods.shift.model import ShiftConfig
from eptx.exporter.methods.tuner import TaskRows
from eptx.exporter.trained.files import WEIGHTS, AdapterFiles
from eptx.exporter.trained.names import exactly
from eptx.exporter.trained.reference import GivenRoutes, Reference, SavedAs


class ShiftReference(Reference):
    """One folder, all tasks."""

    name: ClassVar[str] = "shift"
    title: ClassVar[str] = "Shift"
    tensor_part: ClassVar[str] = ".shift_"

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return config.get("peft_type") == "SHIFT"

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        first = files[0]
        shapes = first.shapes(".shift_v")
        if not shapes:
            raise AdapterError(f"{WEIGHTS}: holds no shift_v")
        return next(iter(shapes.values()))[0], list(first.config.get("tasks") or [])

    def modules(self, files: AdapterFiles) -> list[str]:
        return list(files.shapes(".shift_v"))

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: SavedAs
    ) -> ShiftConfig:
        task_type, modules_to_save = saved
        return ShiftConfig(
            target_modules=exactly(list(names.values())),
            tasks=list(tasks),
            task_type=task_type,
            modules_to_save=modules_to_save,
        )

    def tell(self, state: TaskRows, ids: Tensor, routes: GivenRoutes) -> None:
        state.set(ids)


REFERENCE = ShiftReference()
