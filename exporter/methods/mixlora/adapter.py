"""MixLoRA: every token chooses experts that are whole feed-forwards, each the base's with low-rank updates of its own.

    p = softmax(gate h), the K largest divided by their sum               [E], for every token
    y = sum over the K chosen e of p_e FFN_e(h)
    FFN_e: in every projection  W x + scale B_e A_e x

Attention has plain LoRA. (TUDB-Labs/MoE-PEFT, moe_peft/adapters/mixlora/model.py, moe_peft/model.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from eptx.exporter.adapters.adapter import Adapter, Widths


@dataclass(frozen=True)
class MixLoraModule:
    """What the file holds of one linear layer.

    Attributes:
        a: [E, r, in]. b: [E, out, r]. One expert is a plain LoRA.
        gate: [E, in], of a feed-forward's first layers; None for its last one, and for a plain LoRA.
        scale: of the update.
    """

    a: np.ndarray
    b: np.ndarray
    gate: np.ndarray | None
    scale: float

    @property
    def experts(self) -> int:
        """How many experts the layer has."""
        return len(self.a)

    def parameters(self) -> int:
        """How many numbers the module stores."""
        return self.a.size + self.b.size


@dataclass(frozen=True, kw_only=True)
class MixLoraAdapter(Adapter):
    """A MixLoRA adapter.

    Attributes:
        modules: linear layer -> what the file holds of it, in module order.
        top_k: how many experts a token chooses.
        act_fn: the experts' activation by its name in transformers; None: the base's own.
    """

    method: ClassVar[str] = "mixlora"
    modules: Mapping[str, MixLoraModule]
    top_k: int
    act_fn: str | None = None

    @property
    def module_names(self) -> tuple[str, ...]:
        return tuple(self.modules)

    @property
    def experts(self) -> int:
        """How many experts a feed-forward has."""
        return max(own.experts for own in self.modules.values())

    @property
    def feed_forwards(self) -> list[list[str]]:
        """The first layers of each feed-forward, which have one gate, in module order."""
        found: dict[tuple[str, bytes], list[str]] = {}
        for name, own in self.modules.items():
            if own.gate is not None:
                found.setdefault((name.rpartition(".")[0], own.gate.tobytes()), []).append(name)
        return list(found.values())

    def widths(self, module: str) -> Widths:
        own = self.modules[module]
        return Widths(own.a.shape[2], range(own.b.shape[1], own.b.shape[1] + 1))

    def parameters(self) -> int:
        """The layers of one feed-forward share a gate, which counts once."""
        gates = {own.gate.tobytes(): own.gate.size for own in self.modules.values() if own.gate is not None}
        return sum(own.parameters() for own in self.modules.values()) + sum(gates.values())

    def describe(self) -> dict[str, Any]:
        modules = self.modules.items()
        facts = [{"name": name, "rank": own.a.shape[1], "experts": own.experts} for name, own in modules]
        return {"top_k": self.top_k, "modules": facts}
