"""What tasks change of tensors, in the class that was trained: each row reads its own task's.

A tensor that all rows share goes into the model before it is traced. One that they do not becomes a bank, which
`eptx.exporter.graph.banks` puts in its place in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx._one_line import shown, some
from eptx.errors import AdapterError, BaseModelError, NotSupportedError
from eptx.exporter.adapters.changes import LowRank, TensorChange, Whole
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.weights.bank import Bank, bank_of
from eptx.exporter.bases.weights.sharing import sharing_in, with_shared
from eptx.exporter.bases.weights.sizes import sized_by_labels, sized_by_tokens, tokens_of

Changes = Mapping[str, TensorChange]


@dataclass(frozen=True)
class Saved:
    """What an export's tasks change of tensors.

    Attributes:
        rows: the tasks that the bundle serves, by id.
        tensors: task -> its changes by the tensor's name; a task without any has the base's.
        base: whether rows may switch the adapter off, and then read the base's.
    """

    rows: tuple[str, ...] = ()
    tensors: Mapping[str, Changes] = field(default_factory=dict)
    base: bool = False


@dataclass(frozen=True)
class Form:
    """What a class says of its tensors that its graph does not.

    Attributes:
        by_labels: the tensors that the number of labels sizes.
        tied: the names of every tensor that several modules share in the base.
    """

    by_labels: tuple[str, ...] = ()
    tied: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Banked:
    """What became of the tensors that tasks change.

    Attributes:
        banks: name of the parameter, or of the graph's initializer -> its bank.
        labels: how many labels each task has, then the base where it is served; None where no head was brought.
        base: whether the base has all these modules, so that rows can switch the adapter off.
        vocabulary: how many tokens each task has, then the base where it is served; None where all have the base's.
        alike: the tensors that all rows have from the tasks: the model holds those.
        form: what else the class says of its tensors.
    """

    banks: Mapping[str, Bank] = field(default_factory=dict)
    labels: tuple[int, ...] | None = None
    base: bool = True
    vocabulary: tuple[int, ...] | None = None
    alike: tuple[str, ...] = ()
    form: Form = field(default_factory=Form)


def named_in(model: Any, saved: Saved, prefix: str) -> dict[str, dict[str, TensorChange]]:
    """Every task's changes by the names that the class has for them.

    Raises:
        AdapterError: it has no such tensor.
    """
    if not any(saved.tensors.values()):
        return {task: {} for task in saved.rows}
    known = model.state_dict()
    sharing, lengths = sharing_in(model), {name: len(tensor) for name, tensor in known.items() if tensor.ndim}
    today = _Today(model)
    found: dict[str, dict[str, TensorChange]] = {}
    for task in saved.rows:
        found[task] = {}
        for name, change in saved.tensors.get(task, {}).items():
            spelled = [s for alias in aliases(name, prefix) for s in (alias, today(alias)) if s in known]
            if not spelled:
                kind = type(model).__name__
                problem = f"the adapter brings {name}, which a {kind} (the class that was trained) has not"
                raise AdapterError(f"{problem}: name another class with --model-class, or give the base that it fits")
            _refuse_dilation(model, spelled[0], change)
            found[task][spelled[0]] = change
        found[task] = with_shared(found[task], sharing, lengths)
    return found


def _refuse_dilation(model: Any, name: str, change: TensorChange) -> None:
    """PEFT's factors of a convolution leave its dilation out, so that no kernel is their sum with the base's."""
    layer = model.get_submodule(name.rpartition(".")[0])
    steps = getattr(layer, "dilation", 1)
    if isinstance(change, LowRank) and any(step != 1 for step in (steps if isinstance(steps, tuple) else (steps,))):
        raise NotSupportedError(
            f"{name}: PEFT's update of a convolution leaves out its dilation of {shown(steps)}, which is not "
            "supported: leave the layer out of target_modules and train again"
        )


class _Today:
    """What today's transformers calls a tensor of the days before."""

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming

        self._steps = [step for step in get_model_conversion_mapping(model) if isinstance(step, WeightRenaming)]

    def __call__(self, name: str) -> str:
        for step in self._steps:
            name = step.rename_source_key(name)[0]
        return name


def put_whole(
    model: Any, lacking: Iterable[str], brought: Mapping[str, Changes], saved: Saved, reload: Callable[[int], Any]
) -> tuple[Any, Banked]:
    """Puts what the tasks change into a model.

    Args:
        model: the class with the base's own weights, and as many labels as the base has.
        lacking: the parameters that the base does not have.
        brought: `named_in` of the model.
        saved: what was brought.
        reload: the model again with another number of labels.

    Returns:
        the model to trace, and what it does not hold of the tasks' changes.

    Raises:
        AdapterError: a tensor does not fit the class.
        BaseModelError: neither a task nor the base has a module that the class needs.
    """
    names = list(dict.fromkeys(name for own in brought.values() for name in own))
    sized = sized_by_labels(model) if names or "Classification" in type(model).__name__ else set()
    form = _form(model, sized)
    if not names:
        return model, Banked(base=saved.base, form=form)
    absent = set(lacking)
    _check_complete(absent, brought, type(model).__name__)
    by_labels, by_tokens = sized & set(names), sized_by_tokens(model)
    for own in brought.values():
        for name, change in own.items():
            _check_shape(name, change, model.state_dict()[name].shape, name in absent, name in by_labels | by_tokens)
    has_base = saved.base and not absent & set(names)
    rows: list[Changes] = [*brought.values(), *([{}] if has_base else [])]
    own_count = int(model.config.num_labels)
    labels = [labels_of(own, by_labels, own_count) for own in rows]
    base = {name: _array(model.state_dict()[name]) for name in names if name not in absent}
    most = max(labels)
    if by_labels and most != own_count:
        model = reload(most)
    banks: dict[str, Bank] = {}
    alike = []
    for name in names:
        bank = replace(bank_of(base.get(name), [own.get(name) for own in rows], name), tokens=name in by_tokens)
        if len(bank.entries) == 1:
            _put(model, name, bank.arrays[0])
            alike += [] if bank.entries[0] is None else [name]
        else:
            banks[name] = bank
            _put(model, name, _placeholder(bank.shape))
    counts = tuple(labels) if by_labels else None
    vocabulary = _vocabulary(model, brought, by_tokens, has_base)
    return model, Banked(banks, counts, has_base, vocabulary, tuple(alike), form)


def _form(model: Any, sized: set[str]) -> Form:
    """What the class says, whatever tasks change."""
    tied = {tuple(names) for names in sharing_in(model).values() if len(names) > 1}
    return Form(tuple(sorted(sized)) if "Classification" in type(model).__name__ else (), tuple(sorted(tied)))


def _vocabulary(
    model: Any, brought: Mapping[str, Changes], by_tokens: set[str], has_base: bool
) -> tuple[int, ...] | None:
    """How many tokens each task has, then the base where it is served; None where all have the base's."""
    own = getattr(model.config.get_text_config(), "vocab_size", None)
    if not by_tokens or own is None:
        return None
    counts = [tokens_of(task, changes, by_tokens, own) for task, changes in brought.items()]
    return None if set(counts) == {own} else (*counts, *([own] if has_base else []))


def _check_complete(absent: set[str], brought: Mapping[str, Changes], kind: str) -> None:
    for task, own in brought.items():
        missing = sorted(absent - set(own))
        if missing and len(brought) > 1 and any(name in other for other in brought.values() for name in missing):
            problem = f"task {task!r} brings no {some(missing)}, and the base has none (trained: {kind})"
            raise BaseModelError(f"{problem}: train it with these in modules_to_save, or export it by itself")


def _check_shape(name: str, change: TensorChange, shape: Sequence[int], absent: bool, sized: bool) -> None:
    wrong = change.misfit(None if absent and not isinstance(change, Whole) else shape)
    if wrong is None and isinstance(change, Whole) and not sized and list(change.array.shape) != list(shape):
        wrong = f"is {list(change.array.shape)} in the adapter; the base's class has {list(shape)}"
    if wrong is not None:
        raise AdapterError(f"{name} {wrong}: give the base that the adapter was trained on")


def labels_of(own: Changes, by_labels: Collection[str], base: int) -> int:
    """How many labels a task has.

    Args:
        own: what it changes.
        by_labels: the tensors that the number of labels sizes.
        base: how many the base has.

    Raises:
        AdapterError: not as many in all of its tensors.
    """
    changes = [own[name] for name in by_labels if name in own]
    counts = {len(change.array) for change in changes if isinstance(change, Whole)}
    if len(counts) > 1:
        raise AdapterError(
            f"the adapter's {' and '.join(sorted(by_labels))} are of {sorted(counts)} labels: save it again"
        )
    return counts.pop() if counts else base


def _placeholder(shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that are no other weight's, and not their own transpose."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def banked(model: ir.Model, banks: Mapping[str, Bank]) -> dict[ir.Value, Bank]:
    """The initializers of a model that was just traced -> their banks."""
    own = model.graph.initializers
    return {own[parameter]: bank for parameter, bank in banks.items() if parameter in own}


def in_graph(kept: Mapping[ir.Value, Bank]) -> dict[str, Bank]:
    """The banks by the names that the graph has for the tensors now."""
    return {str(value.name): _in_place(value, bank) for value, bank in kept.items() if value.uses()}


def _in_place(value: ir.Value, bank: Bank) -> Bank:
    """A bank as the graph stores the tensor; the base's takes the place of its placeholder.

    Args:
        value: the initializer, which holds the placeholder as it is, or turned.
        bank: as the model has it.
    """
    assert value.const_value is not None
    stored, plain = value.const_value.numpy(), _placeholder(bank.shape)
    turned = not np.array_equal(stored, plain)
    assert not turned or np.array_equal(stored, plain.T)
    bank = replace(bank, turned=turned)
    if bank.base is not None:
        tensor = ir.Tensor(np.ascontiguousarray(bank.base.T if turned else bank.base), name=value.name)
        value.const_value, value.shape = tensor, ir.Shape(tensor.shape)
    return bank


def _put(model: Any, name: str, array: np.ndarray) -> None:
    """Sets a tensor of this module alone: another that shares it keeps what it has, as with PEFT."""
    import torch

    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    if leaf in module._parameters:
        value = torch.from_numpy(np.array(array, dtype=np.float32))
        module._parameters[leaf] = torch.nn.Parameter(value, requires_grad=False)
    else:
        module._buffers[leaf] = torch.from_numpy(np.array(array)).to(module._buffers[leaf].dtype)


def _array(tensor: Any) -> np.ndarray:
    array: np.ndarray = tensor.detach().numpy().copy()
    return array
