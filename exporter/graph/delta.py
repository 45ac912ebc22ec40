"""What an adapter does to one product, and which products one node of the graph changes.

Modules that read the same value (query, key and value; gate and up) are one node, and so are the modules of a packed
projection: a native kernel then reads that value once, and is called once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import onnx_ir as ir
import onnxscript

from eptx.exporter import ops
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.shared_input import SharedSite

Item = TypeVar("Item")


@dataclass(frozen=True)
class Delta:
    """One module's update: an operator that is called with y, x, `shared` and `own`.

    Attributes:
        operator: of one module.
        shared: inputs that modules have in common: the rows' route.
        own: the module's own inputs.
        attributes: of the operator.
    """

    operator: onnxscript.OnnxFunction
    shared: tuple[ir.Value, ...]
    own: tuple[ir.Value, ...]
    attributes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """A product and its update.

    Attributes:
        site: the product.
        delta: the update of its output, or of its input.
        on_input: whether x is updated instead of y; the operator then adds to x.
        bias_apart: whether the base's bias stays a node of its own: the product is multiplied before it is added.
    """

    site: Site
    delta: Delta
    on_input: bool = False
    bias_apart: bool = False

    @property
    def bias(self) -> ir.Node | None:
        """The node that adds a constant bias to the product, if that is all that is done with it."""
        y = self.site.y
        users = list(y.consumers())
        half = y.dtype == ir.DataType.FLOAT16  # the sum is cast back before anything is added
        apart = self.bias_apart or self.on_input or half or isinstance(self.site, SharedSite)
        if apart or y.is_graph_output() or len(users) != 1:
            return None
        (node,) = users
        others = [value for value in node.inputs if value is not y]
        if node.op_type != "Add" or node.domain not in ("", "ai.onnx") or len(others) != 1 or others[0] is None:
            return None
        bias = others[0]
        fits = bias.is_initializer() and bias.shape is not None and bias.shape.dims == (self.site.packed_width,)
        return node if fits else None

    @property
    def common(self) -> Hashable:
        """What places have in common that can be one node."""
        delta = self.delta
        kind = self.on_input, self.bias is not None, delta.operator.name
        return *kind, self.site.x, delta.shared, tuple(sorted(delta.attributes.items()))

    @property
    def node(self) -> Hashable:
        """The same, with the product where it has to be a node of its own: packed, or of what all rows share."""
        apart = self.site.packed or isinstance(self.site, SharedSite)
        return self.site.node if apart else None, self.common


def in_groups(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Items of the same key, as many together as an operator takes, in the order given."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    size = ops.MAX_GROUP
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]
