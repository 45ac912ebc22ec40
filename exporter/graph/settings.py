"""How an adapter goes into one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eptx.exporter.adapters.routing.route import Frozen
from eptx.exporter.options import Mode, Routing

RoutePlace = Literal["own", "shared", "given"]


@dataclass(frozen=True)
class GraphSettings:
    """How an adapter goes into one graph.

    Attributes:
        mode: "conditioned" or "dynamic" (static replaces weights instead).
        routing: dynamic: one route for the batch, one per row, or one per row that is kept while its answer is
            generated.
        routes: conditioned, with frozen routes: by task id, the route of every call of the router.
        route: dynamic, of an encoder-decoder: whether the graph's router is its "own", is "shared" (its route is an
            output, for the graphs that run after it), or the route is "given" (an input).
    """

    mode: Mode
    routing: Routing = "batch"
    routes: Sequence[Frozen] = ()
    route: RoutePlace = "own"
