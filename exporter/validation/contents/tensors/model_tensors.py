"""The tensors of the trained model that a bundle must hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from eptx.exporter.validation.contents.tensors.traced_forward import Trace

#: "table": rows are looked up, so a run shows only those it reads. "product" and "dense": every run shows all numbers.
Kind = Literal["table", "product", "dense"]
_WRAPPERS = re.compile(r"\.(base_layer|token_adapter|original_module)(?=\.)|\.modules_to_save\.[^.]+(?=\.)")


@dataclass(frozen=True)
class ModelTensor:
    """One tensor of the model.

    Attributes:
        name: as transformers names it.
        array: float32, at least [rows, width].
        kind: how the model reads it.
        side: "encoder" or "decoder" of two graphs, where only one may read it; None for any.
        touched: whether the graph may hold it with a task folded in.
        forms: tensors that the model computes from it and other parameters alone, float32; a graph may hold those.
    """

    name: str
    array: np.ndarray
    kind: Kind
    side: str | None = None
    touched: bool = False
    forms: list[np.ndarray] = field(default_factory=list)

    @property
    def group(self) -> tuple[str, str]:
        """The parent whose children's tensors may be packed together, and the tensor's own name."""
        module, _, leaf = self.name.rpartition(".")
        return module.rpartition(".")[0], leaf


def as_rows(array: np.ndarray) -> np.ndarray:
    """An array as rows [n, width]; a vector has a width of 1."""
    array = np.squeeze(array)
    return array.reshape(1, 1) if array.ndim == 0 else array.reshape(len(array), -1)


def read_model_tensors(
    base: Any, trace: Trace, touched: Collection[str], stacks: Mapping[str, np.ndarray]
) -> Iterator[ModelTensor]:
    """Every tensor that an output depends on.

    Args:
        base: the transformers model.
        trace: of its forward.
        touched: names of the tensors that the graph may hold with a task folded in.
        stacks: what some of these are with it.
    """
    for tensor, path in _tensors(base):
        module, leaf = path.rpartition(".")[::2]
        name = _WRAPPERS.sub("", path)
        if id(tensor) not in trace.used:
            continue
        owner = base.get_submodule(module)
        kind = _kind(owner, leaf)
        array = tensor.detach().float().numpy()
        rows = trace.rows.get(id(tensor), set())
        if kind == "table" and len(rows) == 1:  # the graph cannot read another row
            array, kind = array[sorted(rows)], "dense"
        least = tensor.numel() if kind == "table" else 2
        forms = [
            as_rows(made.float().numpy())
            for made, made_of in trace.made
            if id(tensor) in made_of and made.numel() >= least
        ]
        if name in stacks:
            array = stacks[name]
            forms = [as_rows(array)]  # which the graph holds within rounding
        if array.ndim == 3:  # a graph may hold experts' weights turned
            forms.append(as_rows(np.swapaxes(array, 1, 2)))
        changed = name in touched and name not in stacks
        yield ModelTensor(name, as_rows(array), kind, _side(base, name, kind), changed, forms)


def _tensors(base: Any) -> Iterator[tuple[Tensor, str]]:
    """All parameters and saved float buffers; tied ones under each of their names."""
    for name, parameter in base.named_parameters(remove_duplicate=False):
        yield parameter, name
    lasting = base.state_dict().keys()
    for name, buffer in base.named_buffers(remove_duplicate=False):
        if name in lasting and buffer.is_floating_point():
            yield buffer, name


def _kind(owner: nn.Module, leaf: str) -> Kind:
    if leaf != "weight":
        return "dense"
    if isinstance(owner, nn.Embedding):
        return "table"
    return "product" if isinstance(owner, nn.Linear) else "dense"


def _side(base: Any, name: str, kind: Kind) -> str | None:
    """The side of a table; layers of the decoder that read the encoder's text run in the encoder."""
    if kind != "table" or not getattr(base.config, "is_encoder_decoder", False):
        return None
    return next((side for side in ("encoder", "decoder") if f".{side}." in f".{name}"), None)
