"""EPT (Expert Pyramid Tuning, arXiv 2603.12577) as its files hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from eptx.exporter.adapters.adapter import Adapter, Widths


@dataclass(frozen=True)
class EptModule:
    """One adapted linear's share of the adapter: a low-rank core, its experts and its router.

    Attributes:
        a: [R, in // 2]. b: [out // 2, R].
        kernels: expert e's kernel, [max(1, out // s_e), s_e].
        gate_weight: [E, in]. gate_bias: [E].
        task_embedding: [T, in].
        scale: alpha / R, or alpha / sqrt(R) with rsLoRA.
    """

    a: np.ndarray
    b: np.ndarray
    kernels: tuple[np.ndarray, ...]
    gate_weight: np.ndarray
    gate_bias: np.ndarray
    task_embedding: np.ndarray
    scale: float

    @property
    def rank(self) -> int:
        """R."""
        return int(self.a.shape[0])

    @property
    def in_features(self) -> int:
        """Width of the linear's input."""
        return int(self.gate_weight.shape[1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Kernel size of every expert."""
        return tuple(int(kernel.shape[1]) for kernel in self.kernels)

    def out_range(self) -> range:
        """The widths of the linear's output that B and the kernels fit."""
        low, high = 2 * self.b.shape[0], 2 * self.b.shape[0] + 2
        for kernel in self.kernels:
            rows, size = kernel.shape
            # one row is also what a kernel larger than the output has
            low, high = max(low, rows * size if rows > 1 else 1), min(high, (rows + 1) * size)
        return range(low, high)

    def parameters(self) -> int:
        """How many numbers the module stores."""
        arrays = (self.a, self.b, *self.kernels, self.gate_weight, self.gate_bias, self.task_embedding)
        return sum(array.size for array in arrays)


@dataclass(frozen=True, kw_only=True)
class EptAdapter(Adapter):
    """A trained EPT adapter.

    Attributes:
        modules: module name -> its weights, in module order.
        top_k: how many experts a task uses; 0 when not known.
    """

    method: ClassVar[str] = "ept"
    modules: Mapping[str, EptModule]
    top_k: int

    @property
    def module_names(self) -> tuple[str, ...]:
        return tuple(self.modules)

    def widths(self, module: str) -> Widths:
        weights = self.modules[module]
        return Widths(weights.in_features, weights.out_range())

    def parameters(self) -> int:
        return sum(module.parameters() for module in self.modules.values())

    def describe(self) -> dict[str, Any]:
        from eptx.exporter.methods.ept.fold import route

        return {
            "top_k": self.top_k or "not in the adapter's files: give --top-k",
            "modules": [
                {
                    "name": name,
                    "rank": module.rank,
                    "experts": len(module.kernels),
                    "kernel_sizes": list(module.sizes),
                    "task_experts": {
                        task: [int(e) for e in route(module, i, self.top_k)[0]] for i, task in enumerate(self.tasks)
                    },
                }
                for name, module in self.modules.items()
            ],
        }
