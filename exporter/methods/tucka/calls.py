"""The router's calls in a graph, and whose route each product takes.

The released router routes at every call of its module, and every module that runs later uses the newest route. A graph
holds a product for every call, in the order in which they run, so a product takes the route of the last call before it;
what runs before the first call takes the first one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from eptx.errors import NotSupportedError
from eptx.exporter.bases.products.site import Site, is_fixed


@dataclass(frozen=True)
class Calls:
    """The calls of one module in one graph.

    Attributes:
        inputs: what each call reads, in order.
        constant: of each, whether it reads none of the model's inputs: its route is a constant of base and adapter.
    """

    inputs: tuple[ir.Value, ...]
    constant: tuple[bool, ...]
    _order: Mapping[ir.Node, int]
    _starts: tuple[float, ...]

    @classmethod
    def of(cls, router: Site | None, graph: ir.Graph) -> Calls:
        """The router's calls in a graph before it is edited; none where the graph does not hold the router.

        Raises:
            NotSupportedError: the router is also called where the graph does not show it.
        """
        order = {node: index for index, node in enumerate(graph)}
        calls: list[tuple[float, ir.Value]] = []
        if router is not None and router.unused is None:
            raise NotSupportedError(
                f"the router {router.module} also reads relative positions, which this graph has folded away; "
                "export the folder instead"
            )
        if router is not None and router.unused is not None:
            calls += [(order[place.node], place.x) for place in (router, *router.also)]
            calls += [(order[call.beside] + (-0.5 if call.before else 0.5), call.x) for call in router.unused]
        calls.sort(key=lambda call: call[0])
        inputs = tuple(x for _, x in calls)
        return cls(inputs, tuple(map(is_fixed, inputs)), order, tuple(start for start, _ in calls))

    @property
    def free(self) -> int:
        """How many of them route by the data."""
        return self.constant.count(False)

    def check(self, router: str) -> None:
        """Refuses a router that never reads the data.

        Raises:
            NotSupportedError: all routes are constant.
        """
        if all(self.constant):
            raise NotSupportedError(f"the router {router} reads none of the model's inputs: its route says nothing")

    def serving(self, place: Site) -> int:
        """Which call's route a product takes, as an index; -1, the last one, where the router is in another graph."""
        at = self._order[place.node]
        return max(sum(start <= at for start in self._starts) - 1, 0) if self.inputs else -1
