"""TuckA (Tucker Adaptation, arXiv 2511.06859) as its files hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from eptx.exporter.adapters.adapter import Adapter, Widths


@dataclass(frozen=True)
class TuckaModule:
    """One adapted linear's share of the adapter.

    Attributes:
        u: [in, R]. g: [k, p, R, R], a core for each of k groups. c: [t, p], for the t experts of a group.
    """

    u: np.ndarray
    g: np.ndarray
    c: np.ndarray

    def parameters(self) -> int:
        """How many numbers the module stores."""
        return self.u.size + self.g.size + self.c.size


@dataclass(frozen=True, kw_only=True)
class TuckaAdapter(Adapter):
    """A trained TuckA adapter.

    Attributes:
        modules: module name -> its weights, in module order.
        alpha: the scale of the update.
        router: the module whose input decides the route.
        centroids: [k * t, in], the router's expert centroids.
    """

    method: ClassVar[str] = "tucka"
    modules: Mapping[str, TuckaModule]
    alpha: float
    router: str
    centroids: np.ndarray

    @property
    def module_names(self) -> tuple[str, ...]:
        return tuple(self.modules)

    @property
    def groups(self) -> int:
        """k."""
        return int(self.modules[self.router].g.shape[0])

    @property
    def experts(self) -> int:
        """t, the experts of a group."""
        return int(self.modules[self.router].c.shape[0])

    def widths(self, module: str) -> Widths:
        return Widths(int(self.modules[module].u.shape[0]), None)

    def parameters(self) -> int:
        return self.centroids.size + sum(module.parameters() for module in self.modules.values())

    def describe(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "router": self.router,
            "groups": self.groups,
            "experts_per_group": self.experts,
            "modules": [{"name": name, "rank": int(module.u.shape[1])} for name, module in self.modules.items()],
        }
