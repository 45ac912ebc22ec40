"""What an adapter's routers are, whatever the method: where they are, and what they choose for each task."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Router:
    """What chooses a route by the data: one router for all modules, or one in each.

    Attributes:
        module: the module whose input decides the route of all; None: every module has a router of its own.
        groups: how many groups of experts it chooses among.
        experts: how many experts a group has.
    """

    module: str | None
    groups: int
    experts: int


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
