"""A route: one group of experts and their weights; and what freezing it means.

The router routes at every call of its module. Nearly every base calls it once. Where it is called more often (ALBERT's
layers are one; DeBERTa-v2 with ``share_att_key`` calls it again on its relative positions), a frozen route is one route
for each call that routes by the data, in the order of the calls. A call that reads none of the model's inputs keeps the
route that the router gives: a constant of base and adapter, which nobody chooses.

Where every module has a router of its own, a frozen route is one for each module, in the order of the modules, whatever
calls there are of it. Its group is 0: such routers mix all their experts. MixLoRA's feed-forwards have one each, and a
frozen route for each, by its first module; the weights of experts that do not run are 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from eptx.errors import UsageError


@dataclass(frozen=True)
class Route:
    """A group and the weights of its experts, as the router gives them (TuckA's are sigmoids, not normalized).

    Attributes:
        group: index of the group, 0..k-1.
        weights: one per expert of a group, t numbers.
    """

    group: int
    weights: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Route:
        """Reads ``GROUP:W1,W2,...``.

        Raises:
            UsageError: the text is not of that form.
        """
        group, _, weights = text.partition(":")
        try:
            route = cls(int(group), tuple(float(weight) for weight in weights.split(",")))
        except ValueError:
            raise UsageError(f"--route {text!r}: expected GROUP:W1,W2,... such as 0:0.61,0.42") from None
        if not all(map(math.isfinite, route.weights)):
            raise UsageError(f"--route {text!r}: weights must be finite numbers")
        return route


#: The routes of the router's calls, or of the modules, in order.
Frozen: TypeAlias = tuple[Route, ...]


def parse_frozen(text: str) -> Frozen:
    """Reads what ``--route`` takes: a route, or those of several calls of the router, joined by ``/``.

    Raises:
        UsageError: the text is not of that form.
    """
    return tuple(Route.parse(part) for part in text.split("/"))


@dataclass(frozen=True)
class FrozenRoutes:
    """The routes of an export that freezes them.

    Attributes:
        given: by task id, the route of every call that routes by the data; or of every module or feed-forward.
        constant: call of the router -> the route that it has whatever the data is.
        modules: the modules, where each has a route of its own; where each feed-forward has one, the first of each.
    """

    given: Sequence[Frozen]
    constant: dict[int, Route] = field(default_factory=dict)
    modules: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        """How often the router is called; every call routes all modules that run after it."""
        return 1 if self.modules else len(self.tasks[0])

    @property
    def tasks(self) -> list[Frozen]:
        """By task id, the route of every call."""
        return [self._all(frozen) for frozen in self.given]

    def _all(self, frozen: Frozen) -> Frozen:
        own = iter(frozen)
        return tuple(self.constant.get(call) or next(own) for call in range(len(frozen) + len(self.constant)))
