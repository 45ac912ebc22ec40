"""Its files, and how it gets into a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from eptx.errors import NotSupportedError
from eptx.exporter.adapters.adapter import Adapter, Widths, name_tasks
from eptx.exporter.adapters.checkpoint import Checkpoint, ReadOptions, group_by_module, take
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class ShiftAdapter(Adapter):
    method: ClassVar[str] = "shift"
    vectors: Mapping[str, np.ndarray]

    @property
    def module_names(self) -> tuple[str, ...]:
        return tuple(self.vectors)

    def widths(self, module: str) -> Widths:
        out = self.vectors[module].shape[1]
        return Widths(None, range(out, out + 1))

    def parameters(self) -> int:
        return sum(vectors.size for vectors in self.vectors.values())

    def describe(self) -> dict[str, Any]:
        return {"modules": [{"name": name} for name in self.vectors]}


class Shift(Method):
    name: ClassVar[str] = "shift"
    title: ClassVar[str] = "Shift"
    tensor_parts: ClassVar[tuple[str, ...]] = (".shift_",)

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return config.get("peft_type") == "SHIFT"

    def read(self, checkpoints: Sequence[Checkpoint], options: ReadOptions) -> ShiftAdapter:
        (checkpoint,) = checkpoints
        grouped = group_by_module(checkpoint.tensors, "shift_")
        vectors = {name: take(dict(grouped[name]), name, "shift_v", 2) for name in sorted(grouped)}
        tasks = name_tasks(len(next(iter(vectors.values()))), options.tasks)
        return ShiftAdapter(tasks=tasks, heads=checkpoint.heads, fingerprint=checkpoint.fingerprint, vectors=vectors)

    def fold(self, adapter: ShiftAdapter, module: str, weight: np.ndarray, task: int) -> np.ndarray:
        raise NotSupportedError("a vector is no change of a weight: use --mode conditioned")

    def attach(
        self, adapter: ShiftAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings
    ) -> None:
        axis = editor.constant("shift.axis", np.array([1]))
        for name, site in sites.items():
            vectors = np.concatenate([adapter.vectors[name], np.zeros((1, site.out_features))])  # of `base`: none
            table = editor.constant(f"{name}.shift_v", vectors)
            for place in editor.places(site):
                uses = list(place.y.uses())
                rows = editor.node("Unsqueeze", [editor.gather(table, editor.task_id()), axis])[0]
                editor.adapted[name] = editor.node("Add", [place.y, rows])[0]
                editor.replace(place.y, editor.adapted[name], uses)


METHOD = Shift()
