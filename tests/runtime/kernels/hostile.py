"""Nodes that were made to have a kernel write where it must not: ``python -m tests.runtime.kernels.hostile`` runs them.

A tensor with a dimension of 0 holds nothing, so its other dimensions are free, and so is all that they would size.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tests.runtime.kernels import test_refused as sound
from tests.runtime.kernels.operators import Example, graph, run

RANK = 2**61  # times 8 is 0 in 64 bits
WIDE = 2**58
SIDE = 2**28

Shapes = Mapping[str, tuple[int, ...]]


def _empty(example: Example, shapes: Shapes) -> Example:
    """A node with some of its tensors of these shapes, which hold no numbers."""
    half = {name: example.arrays[name].dtype.kind == "f" and name != "y_0" for name in shapes}
    types = {name: np.float16 if half[name] else example.arrays[name].dtype for name in shapes}
    return sound.changed(example, {name: np.zeros(shape, types[name]) for name, shape in shapes.items()})


def _windowless(example: Example) -> Example:
    """A pyramid whose experts are larger than x and y, so that none reads a or b; their rank is free."""
    nothing = {"kernels_0": np.zeros((3, 6), np.float32), "sizes_0": np.full(3, 100)}
    return _empty(sound.changed(example, nothing), {"a_0": (0, RANK), "b_0": (RANK, 0)})


def _core() -> Example:
    """2^20 routes of 2^22 x 2^22 numbers each are 2^64, which is 0 in 64 bits; nothing here is larger than 16 MB."""
    rows, rank = 2**20, 2**22
    own = {"u": np.zeros((1, rank), np.float16), "g": np.zeros((1, 0, rank, rank), np.float16)}
    own |= {"c": np.zeros((1, 0), np.float32), "p": np.zeros((rank, 1), np.float16)}
    shared = {"x": np.ones((rows, 1), np.float32), "group": np.zeros(rows, int)}
    shared["weights"] = np.zeros((rows, 1), np.float32)
    return Example("TuckerDelta", [np.zeros((rows, 1), np.float32)], shared, [own])


#: name -> the node, and what its kernel says.
CASES: dict[str, tuple[Example, str]] = {
    "a pyramid's rank": (_windowless(sound.PYRAMID), "dimension 0 of a is 0"),
    "a routed pyramid's rank": (_windowless(sound.ROUTED_PYRAMID), "dimension 0 of a is 0"),
    "a core that wraps": (_core(), "dimension 1 of g is 0"),
    "a pair's rank": (_empty(sound.LOW_RANK, {"a_0": (0, 8, WIDE), "b_0": (0, WIDE, 6)}), "dimension 0 of a is 0"),
    "rank 0": (_empty(sound.LOW_RANK, {"a_0": (3, 8, 0), "b_0": (3, 0, 6)}), "dimension 2 of a is 0"),
    "no outputs": (_empty(sound.LOW_RANK, {"b_0": (3, 2, 0), "y_0": (2, 5, 0)}), "dimension 2 of b is 0"),
    "no experts": (_empty(sound.PYRAMID, {"kernels_0": (0, WIDE), "sizes_0": (0,)}), "dimension 0 of kernels is 0"),
    "no routes": (_empty(sound.PYRAMID, {"experts_0": (0, WIDE), "weights_0": (0, WIDE)}), "of experts is 0"),
    "no sizes": (_empty(sound.PYRAMID, {"sizes_0": (0,)}), "dimension 0 of sizes is 0"),
    "no planes": (_empty(sound.TUCKER, {"g_0": (2, 0, 3, 3), "c_0": (4, 0)}), "dimension 1 of g is 0"),
    "no groups": (_empty(sound.TUCKER, {"g_0": (0, 2, SIDE, SIDE), "u_0": (0, SIDE)}), "dimension 0 of u is 0"),
    "no centroids": (_empty(sound.TUCKER_ROUTER, {"centroids_0": (0, RANK)}), "dimension 0 of centroids is 0"),
    "centroids of nothing": (_empty(sound.TUCKER_ROUTER, {"centroids_0": (RANK, 0)}), "dimension 1 of centroids is 0"),
    "tasks of nothing": (
        _empty(sound.ROUTER, {"task_embedding_0": (RANK, 0), "gate_weight_0": (4, 0)}),
        "dimension 1 of task_embedding is 0",
    ),
    "a gate of nothing": (
        _empty(sound.ROUTER, {"gate_weight_0": (0, WIDE), "gate_bias_0": (0,)}),
        "dimension 0 of gate_weight is 0",
    ),
    "no columns": (_empty(sound.PACKED, {"columns": (0,)}), "dimension 0 of columns is 0"),
    "a mask of no rows": (
        replace(sound.TUCKER_ROUTER, shared={"x": np.zeros((0, 5, 8), np.float32), "mask": np.zeros((0, WIDE), int)}),
        "x has 0 numbers for a mask",
    ),
}


def main(kernels: bool) -> None:
    """Runs every node, its weights once as constants and once as inputs, and prints a line for what comes of each."""
    for name, (example, _) in CASES.items():
        for constants in (True, False):
            if name == "a core that wraps" and (constants or not kernels):
                continue  # a model of 32 MB; and the function would need as much memory as it says
            try:
                run(graph(example, constants=constants), example.arrays, kernels=kernels)
            except Exception as e:  # ONNX Runtime has no base class of exceptions
                print(name, "refused", " ".join(str(e).split()), sep="\t", flush=True)
            else:
                print(name, "computed", sep="\t", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] == "kernels")
