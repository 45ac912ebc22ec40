"""Discrete choices: which experts, which group, which task. A choice by a hair is nobody's error.

Rounding may turn a choice whose margin is within rounding, and everything behind it differs then. Batches with such a
near tie are drawn again, and rows that still have one are set aside; the report counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from eptx.exporter.adapter import Adapter
from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from eptx.exporter.reference import ReferenceModel, ReferenceOutput

#: A margin of probabilities, cosines or sigmoids within this is a near tie: what a float32 model rounds them by.
TIE = {"fp32": 1e-6, "fp16": 2e-4}
#: So is one within this many times what the own type's rounding did to it.
_ROUNDINGS = 8


@dataclass(frozen=True)
class ExpertTable:
    """What one module's EPT router chooses for every task.

    Attributes:
        experts: sorted expert ids [T, K].
        tied: bool [T], whether the last of them won by a hair.
        flipped: bool [T], whether a reference chooses others: rounding makes them win, or it is a tie.
    """

    experts: np.ndarray
    tied: np.ndarray
    flipped: np.ndarray


@dataclass(frozen=True)
class Decisions:
    """What one forward of a reference decided, as scores of which the largest win.

    Attributes:
        scores: name of the decision -> [rows or 1, candidates].
        used: EPT, rows to infer: module -> the tasks it used [rows].
    """

    scores: dict[str, np.ndarray] = field(default_factory=dict)
    used: dict[str, np.ndarray] = field(default_factory=dict)


def expert_tables(adapter: Adapter) -> dict[str, ExpertTable]:
    """Module -> its table; empty for other methods than EPT."""
    if not isinstance(adapter, EptAdapter):
        return {}
    return {name: _expert_table(module, adapter.top_k) for name, module in adapter.modules.items()}


def _expert_table(module: EptModule, top_k: int) -> ExpertTable:
    """Routers are float32 in a bundle, or folded to tables."""
    exact = _probabilities(module, lambda array: array.astype(np.float64))
    own = _probabilities(module, lambda array: array.astype(np.float32))
    experts = np.sort(np.argsort(-exact, axis=1, kind="stable")[:, :top_k], axis=1)
    return ExpertTable(experts, near_ties(exact, own, top_k, "fp32"), np.zeros(len(exact), dtype=bool))


def _probabilities(module: EptModule, form: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Of the experts for every task, [T, E]."""
    logits = form(module.task_embedding) @ form(module.gate_weight).T + form(module.gate_bias)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def near_ties(exact: np.ndarray, own: np.ndarray | None, top_k: int, dtype: str) -> np.ndarray:
    """bool [rows]: whether the last winner of the exact scores [rows, candidates] won by a hair.

    Args:
        exact: the scores in float64.
        own: the same in the own type, to see what rounding did to the margin; None to look at the exact alone.
        top_k: how many win.
        dtype: the own type.
    """
    if exact.shape[1] <= top_k:
        return np.zeros(len(exact), dtype=bool)
    chosen = np.argsort(-exact, axis=1, kind="stable")[:, :top_k]
    margin = _margin(exact, chosen)
    tied: np.ndarray = margin <= TIE[dtype]
    if own is not None:
        change = _margin(own, chosen) - margin
        tied |= margin <= _ROUNDINGS * np.abs(change)
    return tied


def _margin(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """How far the least of the chosen is above the best of the others; negative if the scores say otherwise."""
    others = scores.astype(np.float64)
    np.put_along_axis(others, chosen, -np.inf, axis=1)
    least = np.take_along_axis(scores, chosen, axis=1).min(axis=1)
    return np.asarray(least - others.max(axis=1), dtype=np.float64)


class Decider:
    """Reads off a reference what its routers decided in its last forward."""

    def __init__(self, reference: ReferenceModel) -> None:
        self._reference = reference
        self._similarities: dict[str, np.ndarray] = {}
        if isinstance(reference.adapter, EptAdapter):
            for module, name in reference.names.items():
                reference.model.get_submodule(name).register_forward_pre_hook(self._look(module))

    def _look(self, module: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def hook(layer: Any, args: tuple[torch.Tensor, ...]) -> None:
            state = self._reference.state
            if state.shared and module in self._similarities:
                return  # decided by what the rows do not share
            if state.ids is not None and bool((state.ids < 0).any()):
                rows = state.as_rows(args[0])
                self._similarities[module] = layer.task_similarity(rows, layer.active_adapters[0]).detach().numpy()

        return hook

    def note_flips(self, tables: dict[str, ExpertTable]) -> None:
        """Marks the tasks for which this reference chooses other experts than the tables say."""
        for module, table in tables.items():
            layer = self._reference.model.get_submodule(self._reference.names[module])
            experts = np.sort(layer.route(layer.active_adapters[0])[0].numpy(), axis=1)
            np.logical_or(table.flipped, (experts != table.experts).any(axis=1), out=table.flipped)

    def decisions(self, output: ReferenceOutput, ids: np.ndarray) -> Decisions:
        """Of the forward that gave `output` for rows of these task ids."""
        if isinstance(self._reference.adapter, EptAdapter):
            return self._inferred(ids)
        if output.group is None or output.margin is None or not np.isfinite(output.margin).all():
            return Decisions()
        # one score per group is not kept: the winner's is its margin, everybody else's is zero
        groups = np.zeros((len(output.group), self._reference.adapter.groups))  # type: ignore[attr-defined]
        groups[np.arange(len(groups)), output.group] = output.margin
        return Decisions({"group": groups})

    def _inferred(self, ids: np.ndarray) -> Decisions:
        infer = (ids < 0)[:, None]
        if not infer.any():
            return Decisions()
        taken, self._similarities = self._similarities, {}
        scores = {module: np.where(infer, values, _decided(values)) for module, values in taken.items()}
        total = np.sum(list(taken.values()), axis=0)
        used = {module: np.where(ids < 0, values.argmax(axis=1), ids) for module, values in taken.items()}
        return Decisions(scores | {"task": np.where(infer, total, _decided(total))}, used)


def _decided(values: np.ndarray) -> np.ndarray:
    """Scores of rows whose task was given: no contest."""
    scores = np.zeros_like(values)
    scores[:, 0] = 1.0
    return scores


def tied_rows(exact: Decisions, own: Decisions | None, rows: int, dtype: str) -> np.ndarray:
    """bool [rows]: rows behind a near tie; a tie of the whole batch's route ties all its rows."""
    tied = np.zeros(rows, dtype=bool)
    for name, scores in exact.scores.items():
        tied |= np.broadcast_to(near_ties(scores, own.scores[name] if own else None, 1, dtype), rows)
    return tied


def unclear_experts(tables: dict[str, ExpertTable], ids: np.ndarray, used: dict[str, np.ndarray]) -> np.ndarray:
    """bool [rows]: rows that cannot be judged for their tasks' experts.

    A named task's are where rounding picks other experts; where it merely might, the bundle's choice is looked at
    first (`judge`). Rows to infer are set aside for either.
    """
    unclear = np.zeros(len(ids), dtype=bool)
    for module, table in tables.items():
        # the task that switches the adapter off has no experts
        flipped, tied = np.append(table.flipped, False), np.append(table.flipped | table.tied, False)
        unclear |= np.where(ids < 0, tied[used.get(module, ids)], flipped[ids])
    return unclear


def wrong_rows(table: ExpertTable, ids: np.ndarray, chosen: np.ndarray) -> Sequence[int]:
    """Rows whose experts [rows, K] are not the reference's; rows without a task of their own are not looked at."""
    named = (ids >= 0) & (ids < len(table.experts))
    expected = table.experts[np.where(named, ids, 0)]
    differs = (np.sort(chosen, axis=1) != expected).any(axis=1)
    return [int(row) for row in np.flatnonzero(named & differs)]
