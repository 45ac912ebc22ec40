"""What tasks change of tensors, in a base graph that a bundle kept: it may hold a tensor of the tasks' alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.adapters.changes import TensorChange, Whole
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.passes.whole import gives_logits, layout_of, widen
from eptx.exporter.bases.weights.bank import Bank, bank_of
from eptx.exporter.bases.weights.sharing import with_shared
from eptx.exporter.bases.weights.whole import Banked, Form, Saved, labels_of

__all__ = ["KeptTensor", "named_in_graphs", "with_kept"]

Changes = Mapping[str, TensorChange]


@dataclass(frozen=True)
class KeptTensor:
    """A tensor that tasks of a bundle change.

    Attributes:
        value: its name in the base graph.
        turned: whether that has its last two axes swapped.
        base: the base's own, as the class has it; None where the bundle does not hold it.
    """

    value: str
    turned: bool
    base: np.ndarray | None


def named_in_graphs(changes: Changes, graphs: Sequence[BaseGraph], known: Collection[str], form: Form) -> Changes:
    """One new task's changes by the names that the class has for its tensors.

    Args:
        changes: by the names in the adapter's file.
        graphs: of the base.
        known: the tensors that the bundle's tasks change.
        form: what the class says of its tensors.

    Raises:
        NotSupportedError: the graphs do not hold a tensor, or not apart from that of another module.
    """
    own = {name: value for graph in graphs for name, value in graph.model.graph.initializers.items()}
    here = {*known, *own}
    found: dict[str, TensorChange] = {}
    for name, change in changes.items():
        spelled = next((alias for alias in aliases(name, graphs[-1].prefix) if alias in here), None)
        if spelled is None:
            raise NotSupportedError(f"the base's graph has no {name}, which the adapter brings whole")
        group = next((names for names in form.tied if spelled in names), ())
        if not change.tied and not here.issuperset(group):
            raise NotSupportedError(f"the base's graph has no {name} of its own: {', '.join(group)} are one tensor")
        found[spelled] = change
    firsts = {name: value.shape[0] for name, value in own.items() if value.shape is not None and len(value.shape)}
    lengths = {name: first for name, first in firsts.items() if isinstance(first, int)}
    shared = with_shared(found, {name: names for names in form.tied for name in names}, lengths)
    return {name: change for name, change in shared.items() if name in here}


def with_kept(graph: BaseGraph, saved: Saved, kept: Mapping[str, KeptTensor], form: Form) -> BaseGraph:
    """A base graph with what its tasks share in place, and with banks of what they do not.

    Args:
        graph: with the weights that the bundle has in it; changed in place.
        saved: the changes, by the names of the class.
        kept: tensor -> what the bundle says of it, of those that its tasks change.
        form: what the class says of its tensors.

    Raises:
        NotSupportedError: a row reads the base's own tensor, and the bundle does not hold that.
        AdapterError: a tensor is of another shape than the graph's.
    """
    own = graph.model.graph.initializers
    changed = [name for changes in saved.tensors.values() for name in changes if name in kept or name in own]
    tensors = {name: kept.get(name) or _kept(graph, name) for name in dict.fromkeys([*kept, *changed])}
    banks: dict[str, Bank] = {}
    alike = []
    labels = _labels(saved, {name: tensor for name, tensor in tensors.items() if name in form.by_labels})
    for name, tensor in tensors.items():
        rows = _rows(name, tensor.base, saved)
        _check(name, tensor.base, rows, sized=name in form.by_labels)
        bank = replace(bank_of(tensor.base, rows, name), turned=tensor.turned)
        value = own[tensor.value]
        if name in form.by_labels:
            widen(value, bank.size)
        if len(bank.entries) > 1:
            banks[tensor.value] = bank
            _put(value, np.zeros(bank.shape) if tensor.base is None else tensor.base, turned=bank.turned)
        else:
            _put(value, bank.array(bank.entries[0]), turned=bank.turned)
            alike += [] if bank.entries[0] is None else [name]
        if name in changed and graph.generation is None and not form.by_labels and gives_logits(value):
            labels = (bank.size,) * len(rows)
    return replace(graph, whole=Banked(banks, labels, saved.base, alike=tuple(alike), form=form))


def _kept(graph: BaseGraph, name: str) -> KeptTensor:
    """A tensor that no task has changed.

    Raises:
        NotSupportedError: several modules read it: exporters make equal tensors one.
    """
    value = graph.model.graph.initializers[name]
    if len(value.uses()) > 1:
        raise NotSupportedError(f"the base's graph has no {name} of its own: other modules read the same tensor")
    stored, turned = layout_of(graph, value)
    return KeptTensor(name, turned, np.array(stored.T if turned else stored))


def _rows(name: str, base: np.ndarray | None, saved: Saved) -> list[TensorChange | None]:
    """What each task changes of a tensor, then what the base does where it is served: nothing."""
    rows = {task: saved.tensors.get(task, {}).get(name) for task in saved.rows}
    lacking = next((task for task, change in rows.items() if change is None), None)
    if base is None and (lacking is not None or saved.base):
        raise NotSupportedError(
            f"task {lacking or 'base'!r} has no {name}, and the bundle holds that of other tasks alone"
        )
    return [*rows.values(), *([None] if saved.base else [])]


def _check(name: str, base: np.ndarray | None, rows: Sequence[TensorChange | None], *, sized: bool) -> None:
    first = next((change.array for change in rows if isinstance(change, Whole)), None)
    shape = base.shape if base is not None else None if first is None else first.shape
    for change in rows:
        wrong = None if change is None else change.misfit(shape)
        if wrong is None and isinstance(change, Whole) and not sized and change.array.shape != shape:
            wrong = f"is {list(change.array.shape)} in the adapter, {list(shape or ())} in the bundle"
        if wrong is not None:
            raise AdapterError(f"{name} {wrong}")


def _labels(saved: Saved, sized: Mapping[str, KeptTensor]) -> tuple[int, ...] | None:
    """How many labels each task has, then the base where it is served; None where no task changes a head."""
    changes = [saved.tensors.get(task, {}) for task in saved.rows]
    if not any(name in own for own in changes for name in sized):
        return None
    base = next((len(tensor.base) for tensor in sized.values() if tensor.base is not None), 0)
    return tuple(labels_of(own, sized, base) for own in [*changes, *([{}] if saved.base else [])])


def _put(value: ir.Value, array: np.ndarray, *, turned: bool) -> None:
    """Sets the tensor of an initializer, in its type."""
    assert value.dtype is not None
    stored = np.swapaxes(array, -1, -2) if turned else array
    tensor = ir.Tensor(np.ascontiguousarray(stored, dtype=value.dtype.numpy()), name=value.name)
    value.const_value, value.shape = tensor, ir.Shape(tensor.shape)
