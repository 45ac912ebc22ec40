"""What an adapter's routers are, whatever the method: where they are, and what they choose for each task."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from eptx.errors import UsageError
from eptx.exporter.adapters.routing.route import Route

#: By how much weights may miss 1 that sum to it, as decimals have them.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Router:
    """What chooses a route by the data: one router for all modules, or one in each, or in each feed-forward.

    Attributes:
        module: the module whose input decides the route of all; None: there are several routers.
        groups: how many groups of experts it chooses among.
        experts: how many experts a group has.
        top_k: how many of them run, by weights that sum to 1; the others' are 0. None: all of them, by any weights.
    """

    module: str | None
    groups: int
    experts: int
    top_k: int | None = None

    def kept(self, mean: np.ndarray) -> np.ndarray:
        """What a frozen route keeps of the mean weights of a group's experts, [experts].

        Where experts are chosen, the largest of these, the first of equals, divided by their sum: as many run then as
        by the live router.
        """
        if self.top_k is None:
            return mean
        chosen = np.argsort(-mean, kind="stable")[: self.top_k]
        kept = np.zeros_like(mean)
        kept[chosen] = mean[chosen] / mean[chosen].sum()
        return kept

    def check(self, route: Route) -> None:
        """Compares a frozen route with the router.

        Raises:
            UsageError: it has another number of weights, names a group that is not there, or has weights that are no
                choice of `top_k` experts.
        """
        if not 0 <= route.group < self.groups:
            raise UsageError(
                f"--route: group {route.group} does not exist; the adapter has groups 0 to {self.groups - 1}"
            )
        if len(route.weights) != self.experts:
            raise UsageError(
                f"--route: {len(route.weights)} weights given; the adapter has {self.experts} experts in a group"
            )
        if self.top_k is None:
            return
        used = sum(weight != 0 for weight in route.weights)
        if used > self.top_k or min(route.weights) < 0 or not abs(sum(route.weights) - 1) <= _ROUNDING:
            raise UsageError(
                f"--route: {used} weights are not 0, and all sum to {sum(route.weights):g}; the adapter runs "
                f"{self.top_k} experts: give at most {self.top_k} weights above 0, which sum to 1, and 0 for the others"
            )


@dataclass(frozen=True)
class ModuleExperts:
    """What the router of one module chooses for every task, whatever the data is.

    Attributes:
        sizes: every expert's kernel size, by its number; None where experts have none.
        choices: by task id, its experts, most probable first, with weights that sum to 1.
    """

    sizes: tuple[int | None, ...]
    choices: tuple[tuple[tuple[int, float], ...], ...]


def mixed(weights: np.ndarray) -> ModuleExperts:
    """Experts of which every task mixes all; `weights` is [tasks, experts], and each row sums to 1."""
    order = np.argsort(-weights, axis=1, kind="stable")
    choices = (zip(map(int, own), map(float, row[own]), strict=True) for own, row in zip(order, weights, strict=True))
    return ModuleExperts((None,) * weights.shape[1], tuple(map(tuple, choices)))


def expert_sizes(modules: Collection[ModuleExperts]) -> tuple[int | None, ...]:
    """Every expert's kernel size, by its number; None where modules differ."""
    most = max(len(module.sizes) for module in modules)
    sizes = [{module.sizes[e] for module in modules if e < len(module.sizes)} for e in range(most)]
    return tuple(size.pop() if len(size) == 1 else None for size in sizes)
