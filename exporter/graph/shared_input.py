"""Products whose input the whole batch shares, and what it takes to let them differ per row.

DeBERTa-v2 projects its relative positions, [1, 2k, H], with adapted layers. Where the adapter differs per row, so do
the projected positions, [N, 2k, H]: that fits if everything between them and the rows' own values, which they meet in
a product, leaves the leading axis alone. eptx's own export of a transformers folder is such a graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from eptx.errors import NotSupportedError
from eptx.exporter.bases.products.site import Site

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class SharedSite(Site):
    """A product of something that all rows share, with its input expanded to the rows.

    Attributes:
        rows: x expanded to [N, ..., in].
        behind: the values between the product and the rows' own, which get rows as well.
    """

    rows: ir.Value | None = None
    behind: tuple[ir.Value, ...] = ()

    @property
    def x(self) -> ir.Value:
        """The expanded input."""
        assert self.rows is not None
        return self.rows


def values_behind(place: Site, batch: int | ir.SymbolicDim) -> tuple[ir.Value, ...]:
    """The values [1, ...] that get rows when the place's output does.

    Raises:
        NotSupportedError: one of them cannot.
    """
    found: list[ir.Value] = []
    todo = [] if place.packed else [place.y]
    while todo:
        value = todo.pop()
        nexts = [_next(value, user, index, batch) for user, index in value.uses()]
        if value.is_graph_output() or not _is_one(value) or any(end is None for end in nexts):
            break
        found.append(value)
        todo += [end for end in nexts if isinstance(end, ir.Value)]
    else:
        if found:
            return tuple(found[1:])
    raise NotSupportedError(
        f"{place.module} also projects something that the whole batch shares (such as relative positions), which this "
        "graph does not let differ by row: use --mode static, leave the module out of target_modules, give DeBERTa-v2 "
        "as its transformers folder, or use --routing batch where the adapter has it"
    )


def give_rows(value: ir.Value, batch: int | ir.SymbolicDim) -> None:
    """Says that a value [1, ...] has rows now."""
    assert value.shape is not None
    value.shape = ir.Shape([batch, *list(value.shape)[1:]])


def _next(value: ir.Value, user: ir.Node, index: int, batch: int | ir.SymbolicDim) -> ir.Value | bool | None:
    """What a node makes of the value's leading axis: an output that has it, True where it meets rows, else None."""
    assert value.shape is not None
    others = [other for other in user.inputs if other is not None and other is not value]
    keeps = False
    if _multiplies(user) and len(others) == 1:
        shape = others[0].shape
        return True if shape is not None and len(shape) == len(value.shape) > 2 and shape[0] == batch else None
    if user.domain not in _STANDARD:
        return None
    if user.op_type in ("Add", "Sub", "Mul", "Div"):
        keeps = all(other.shape is not None and len(other.shape) < len(value.shape) for other in others)
    elif user.op_type == "Transpose":
        perm = user.attributes.get("perm")
        keeps = perm is not None and perm.as_ints()[0] == 0
    elif user.op_type == "Reshape" and index == 0 and others and others[0].const_value is not None:
        first, *rest = others[0].const_value.numpy().tolist()
        keeps = first == -1 and rest != [] and min(rest) > 0 and math.prod(rest) == _size(value)
    return user.outputs[0] if keeps else None


def _multiplies(node: ir.Node) -> bool:
    """Whether a node multiplies matrices, and broadcasts the axes before them."""
    if node.domain in _STANDARD:
        return node.op_type == "MatMul"
    fused = node.domain == "com.microsoft" and node.op_type == "FusedMatMul"
    return fused and not any(node.attributes.get_int(name, 0) for name in ("transBatchA", "transBatchB"))


def _is_one(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) > 1 and value.shape[0] == 1


def _size(value: ir.Value) -> int:
    """Numbers in a row of the value; 0 if unknown."""
    assert value.shape is not None
    return math.prod(dim if isinstance(dim, int) else 0 for dim in list(value.shape)[1:])
