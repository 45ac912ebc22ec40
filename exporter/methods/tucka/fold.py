"""TuckA's algebra: a route, and the change of weight that it amounts to.

    M = sum_t a_t sum_p C[t, p] G[g, p]   with C = c / ||c||_F, G[g] = g[g] / ||g[g]||_F       [R, R]
    W' = W + alpha * W U M^T U^T          with U = u / ||u||_F

which is the released x' = x + alpha ((x U) M) U^T, y = W x' + b, for one frozen route. The route is the router's of
the mean h of its input: L = (centroids h) as [k, t], each row divided by its length, a = sigmoid(L), and the group of
the largest a.
"""

from __future__ import annotations

import numpy as np

from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.methods.tucka.adapter import TuckaAdapter, TuckaModule


def normalized(module: TuckaModule) -> TuckaModule:
    """The factors divided by their Frobenius norms (each group's core by its own), float64."""
    u, g, c = (array.astype(np.float64) for array in (module.u, module.g, module.c))
    return TuckaModule(
        u / np.linalg.norm(u), g / np.sqrt(np.sum(g * g, axis=(1, 2, 3), keepdims=True)), c / np.linalg.norm(c)
    )


def fold(adapter: TuckaAdapter, module: str, weight: np.ndarray, route: Route) -> np.ndarray:
    """`weight` [out, in] with a route put into it, float64."""
    factors = normalized(adapter.modules[module])
    experts = np.einsum("tp,pij->tij", factors.c, factors.g[route.group])
    mixed = np.einsum("t,tij->ij", np.asarray(route.weights), experts)
    folded: np.ndarray = weight + adapter.alpha * (weight @ factors.u) @ mixed.T @ factors.u.T
    return folded


def route_of(adapter: TuckaAdapter, x: np.ndarray) -> Route:
    """What the router says of one input [..., in], in float64."""
    scores = adapter.centroids.astype(np.float64) @ x.reshape(-1, x.shape[-1]).mean(0, dtype=np.float64)
    by_group = scores.reshape(adapter.groups, adapter.experts)
    affinity = 1 / (1 + np.exp(-by_group / np.linalg.norm(by_group, axis=1, keepdims=True)))
    group = int(affinity.max(1).argmax())
    return Route(group, tuple(map(float, affinity[group])))
