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
from eptx.exporter._shared import SharedSite
from eptx.exporter.base.site import Site

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
    """

    site: Site
    delta: Delta
    on_input: bool = False

    @property
    def common(self) -> Hashable:
        """What places have in common that can be one node."""
        delta = self.delta
        return self.on_input, delta.operator.name, self.site.x, delta.shared, tuple(sorted(delta.attributes.items()))

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
