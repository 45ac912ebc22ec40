"""Which experts a graph's tokens run through: as a router says for each, or as each row's task has them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import onnx_ir as ir

from eptx.exporter import ops
from eptx.exporter.adapters.routing.route import Frozen
from eptx.exporter.graph.by_row import by_token
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.methods.mixlora.adapter import MixLoraAdapter

#: `experts` int64 [T, K] and `weights` [T, K] of T tokens, as `ChosenExpertsDelta` and the others take them.
Choice: TypeAlias = tuple[ir.Value, ir.Value]


class Chooser(Protocol):
    """Chooses the experts of tokens, and who has plain LoRA.

    Attributes:
        per_row: whether rows of one batch may differ in their task.
    """

    per_row: bool

    def choose(self, number: int, name: str, x: ir.Value) -> Choice:
        """Of a feed-forward, by its number, one of its first layers and what that reads, [..., in]."""
        ...

    def served(self) -> ir.Value:
        """The route of plain LoRA, int64 [1] for all rows or [batch]: 0, or 1 for a row without an adapter."""
        ...


class ByToken:
    """The adapter's routers."""

    per_row = False

    def __init__(self, editor: GraphEditor, adapter: MixLoraAdapter) -> None:
        self._editor, self._adapter = editor, adapter

    def choose(self, number: int, name: str, x: ir.Value) -> Choice:
        gate = self._adapter.modules[name].gate
        assert gate is not None
        weight = self._editor.constant(f"{name}.moe_gate", gate, exact=True)
        inputs = [self._editor.float32(x), weight]
        experts, weights = self._editor.call(ops.TopExperts, inputs, top_k=self._adapter.top_k)
        return experts, weights

    def served(self) -> ir.Value:
        return self._editor.constant("mixlora.route", np.zeros(1, dtype=np.int64))


class ByTask:
    """Frozen routes: each feed-forward has a table of them, with an entry of no experts for rows without an adapter.

    Args:
        editor: of the graph.
        adapter: the adapter.
        routes: by task id, the route of each feed-forward.
    """

    per_row = True

    def __init__(self, editor: GraphEditor, adapter: MixLoraAdapter, routes: Sequence[Frozen]) -> None:
        self._editor, self._adapter, self._routes = editor, adapter, routes
        self._tasks: dict[Hashable, ir.Value] = {}
        self._served: ir.Value | None = None

    def choose(self, number: int, name: str, x: ir.Value) -> Choice:
        weights = np.array([routes[number].weights for routes in self._routes])
        # the slots are in the order of the experts' numbers; of equals the first are taken
        experts = np.sort(np.argsort(-weights, axis=1, kind="stable")[:, : self._adapter.top_k], axis=1)
        nobody = np.full_like(experts[:1], self._adapter.experts)
        all_to_one = np.eye(1, experts.shape[1])
        shares = np.concatenate([np.take_along_axis(weights, experts, axis=1), all_to_one])
        tables = (
            self._editor.constant(f"{name}.task_experts", np.concatenate([experts, nobody])),
            self._editor.constant(f"{name}.task_weights", shares, exact=True),
        )
        tokens = _tokens(x)
        if tokens not in self._tasks:
            self._tasks[tokens] = by_token(self._editor, self._editor.task_id(), x)
        own, shared = (self._editor.gather(table, self._tasks[tokens]) for table in tables)
        return own, shared

    def served(self) -> ir.Value:
        if self._served is None:
            off = np.arange(len(self._routes) + 1) // len(self._routes)
            self._served = self._editor.gather(self._editor.constant("mixlora.off", off), self._editor.task_id())
        return self._served


def _tokens(x: ir.Value) -> Hashable:
    """Equal for values of the same tokens: the dimensions before the features, where the graph names them all."""
    dims = () if x.shape is None else tuple(x.shape[:-1])
    named = all(isinstance(dim, int) or dim.value is not None for dim in dims)
    return dims if dims and named else x
