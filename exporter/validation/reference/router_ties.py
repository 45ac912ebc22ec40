"""Near ties of routers: choices of experts, groups or tasks whose margin is within rounding.

Rounding may turn such a choice, and then everything behind it differs, without an error of the bundle. So batches with
a router tie are drawn again, and rows that still have one are set aside; the report counts both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from eptx.exporter.trained import Output, Trained
from eptx.exporter.trained.reference import Reference
from eptx.runtime.validation.routers import Decisions, ExpertTable

#: Margins of probabilities, cosines or sigmoids up to this are router ties: a model of that type rounds them so much.
TIE = {"fp32": 1e-6, "fp16": 2e-4}
#: So are margins up to this many times the change that the own type's rounding made to them.
_ROUNDINGS = 8


def expert_tables(trained: Trained) -> dict[str, ExpertTable]:
    """Module -> its table; empty for methods whose tasks choose no experts."""
    host = trained.hosts[0]
    tables = {module: _expert_table(trained.method, host.layer(module)) for module in host.names}
    return {module: table for module, table in tables.items() if table is not None}


def _expert_table(method: Reference, layer: Any) -> ExpertTable | None:
    """The table of a layer in float64; a bundle stores routers in float32, or folds them to tables."""
    exact, own = (method.experts(layer, dtype) for dtype in (torch.float64, torch.float32))
    if exact is None or own is None:
        return None
    probabilities, top_k = exact
    experts = np.sort(np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k], axis=1)
    tied = near_ties(probabilities, own[0], top_k, "fp32")
    return ExpertTable(experts, tied, np.zeros(len(probabilities), dtype=bool))


def near_ties(exact: np.ndarray, own: np.ndarray | None, top_k: int, dtype: str) -> np.ndarray:
    """bool [rows]: whether the last winner of the exact scores [rows, candidates] won by a tie.

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
    """The lowest score of the chosen less the highest of the others; negative if the scores choose otherwise."""
    others = scores.astype(np.float64)
    np.put_along_axis(others, chosen, -np.inf, axis=1)
    least = np.take_along_axis(scores, chosen, axis=1).min(axis=1)
    return np.asarray(least - others.max(axis=1), dtype=np.float64)


class RouterRecorder:
    """Records the decisions of a reference's routers in its last forward."""

    def __init__(self, trained: Trained) -> None:
        self._host, self._tasks = trained.hosts[0], len(trained.tasks)
        self._similarities: dict[str, np.ndarray] = {}
        if trained.method.infers_tasks:
            for module in self._host.names:
                self._host.layer(module).register_forward_pre_hook(self._look(module))

    def _look(self, module: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def hook(layer: Any, args: tuple[torch.Tensor, ...]) -> None:
            state = self._host.state
            if state.shared and module in self._similarities:
                return  # rows that share an input decide nothing
            if state.ids is not None and bool((state.ids < 0).any()):
                rows = state.as_rows(args[0])
                self._similarities[module] = layer.task_similarity(rows, layer.active_adapters[0]).detach().numpy()

        return hook

    def note_flips(self, tables: dict[str, ExpertTable]) -> None:
        """Marks the tasks for which this model chooses other experts than the tables say."""
        for module, table in tables.items():
            layer = self._host.layer(module)
            experts = np.sort(layer.route(layer.active_adapters[0])[0].numpy(), axis=1)
            np.logical_or(table.flipped, (experts != table.experts).any(axis=1), out=table.flipped)

    def decisions(self, output: Output, ids: np.ndarray) -> Decisions:
        """Of the forward that gave `output` for rows of these task ids."""
        if self._host.method.infers_tasks:
            return self._inferred(ids)
        # only margins are kept: the winner's score is its margin, the others' is zero
        finite = [margin for margin in output.margins if np.isfinite(margin).all()]
        return Decisions({f"route {i}": np.stack([m, np.zeros_like(m)], 1) for i, m in enumerate(finite)})

    def _inferred(self, ids: np.ndarray) -> Decisions:
        infer = (ids < 0)[:, None]
        if not infer.any():
            return Decisions()
        taken, self._similarities = self._similarities, {}
        scores = {module: np.where(infer, values, undisputed(values)) for module, values in taken.items()}
        total = np.sum(list(taken.values()), axis=0)
        used = {module: np.where(ids < 0, values.argmax(axis=1), ids) for module, values in taken.items()}
        return Decisions(scores | {"task": np.where(infer, total, undisputed(total))}, used)


def undisputed(values: np.ndarray) -> np.ndarray:
    """Scores of rows whose task was given: an undisputed decision."""
    scores = np.zeros_like(values)
    scores[:, 0] = 1.0
    return scores


def tied_rows(exact: Decisions, own: Decisions | None, rows: int, dtype: str) -> np.ndarray:
    """bool [rows]: rows behind a router tie; a tie of the whole batch's route ties all its rows."""
    tied = np.zeros(rows, dtype=bool)
    for name, scores in exact.scores.items():
        tied |= np.broadcast_to(near_ties(scores, own.scores[name] if own else None, 1, dtype), rows)
    return tied


def unclear_experts(tables: dict[str, ExpertTable], ids: np.ndarray, used: dict[str, np.ndarray]) -> np.ndarray:
    """bool [rows]: rows that are set aside because of their tasks' experts.

    Those are rows whose task was named, if rounding does choose other experts. If it only may, the bundle's own choice
    is looked at first (`compare_with_reference`). Rows whose task is inferred are set aside in both cases.
    """
    unclear = np.zeros(len(ids), dtype=bool)
    for module, table in tables.items():
        # the task that switches the adapter off has no experts
        flipped, tied = np.append(table.flipped, False), np.append(table.flipped | table.tied, False)
        unclear |= np.where(ids < 0, tied[used.get(module, ids)], flipped[ids])
    return unclear
