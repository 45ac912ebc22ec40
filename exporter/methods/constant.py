"""Methods whose update of a linear layer is a constant of the task: one fold, and one way into a graph, for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from eptx.exporter.adapters.constant import ConstantAdapter
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.graph.updates import attach_updates
from eptx.exporter.methods.method import Method


class Constant(Method):
    """A method whose `read`, or `complete`, gives a `ConstantAdapter`.

    In a graph, the updates of all tasks are in banks of which each row reads its task's.

    Attributes:
        banks: of the factors, as their names go on after the module's.
    """

    banks: ClassVar[tuple[str, str]] = ("update_A", "update_B")

    def fold(self, adapter: ConstantAdapter, module: str, weight: np.ndarray, choice: int, /) -> np.ndarray:
        update = adapter.update(adapter.tasks[choice], module, lambda: weight)
        return weight if update is None else update.fold(weight)

    def shift(self, adapter: ConstantAdapter, module: str, task: int, /) -> np.ndarray | None:
        return adapter.shift(adapter.tasks[task], module)

    def attach(
        self, adapter: ConstantAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings, /
    ) -> None:
        """Updates that are no `LinearUpdate` hold as much as a weight; `check` has refused them."""
        for name, site in sites.items():
            updates = [adapter.update(task, name, site.weight_array) for task in adapter.tasks]
            attach_updates(editor, site, [u if isinstance(u, LinearUpdate) else None for u in updates], self.banks)
