"""The trained MixLoRA model: MoE-PEFT's formula, in a PEFT tuner.

A feed-forward's first layers give, for every token, what each chosen expert gives, as an axis before the features;
activations do not mind, and the last layer runs every expert and weighs what they give. A frozen route has weights of
all experts; those with the largest run for every token, as many as a router would choose.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from eptx.exporter.methods.formula import FormulaModel
from eptx.exporter.methods.routed_formula import RoutedLinear, RoutedReference, RoutedRows, Weighed, by_number
from eptx.exporter.trained.files import PREFIX, AdapterFiles
from eptx.exporter.trained.reference import GivenRoutes


def _expert(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], x: Tensor, experts: Tensor) -> Tensor:
    """What experts, by number [...], add to a layer's outputs for its inputs [..., in]."""
    down, up = tensors["moe_lora_A"][experts], tensors["moe_lora_B"][experts]
    hidden = torch.einsum("...ri,...i->...r", down, x)
    scale = settings["scaling" if len(tensors["moe_lora_A"]) == 1 else "expert_scaling"]
    added: Tensor = torch.einsum("...or,...r->...o", up, hidden) * scale
    return added


class _Rows(RoutedRows):
    """What the layers share.

    Attributes:
        chosen: of the feed-forward that runs now: experts and weights, [..., K] for every token.
        narrow: of every router, by how much the last chosen expert was before the next one, [batch] at each choice.
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self.chosen: tuple[Tensor, Tensor] | None = None
        self.narrow: dict[int, list[Tensor]] = {}

    def tell(self, routes: GivenRoutes) -> None:
        super().tell(routes)
        self.narrow = {}

    @property
    def taken(self) -> list[Weighed]:
        if not self.narrow:  # all experts run
            return super().taken
        margins = [torch.stack(self.narrow[number]).amin(0) for number in sorted(self.narrow)]
        return [replace(said, narrow=margin) for said, margin in zip(super().taken, margins, strict=True)]


class _Layer(RoutedLinear):
    """A layer of a feed-forward with experts, or with a plain LoRA."""

    state: _Rows

    def forward(self, x: Tensor) -> Tensor:
        """With slots where a choice has been made: [..., in] to [..., K, out], and [..., K, in] to [..., out]."""
        result: Tensor
        if self.disable_adapters or self.state.ids is None:
            result = self.base_layer(x)
            return result
        tensors = self._named()
        if "moe_gate" in tensors:
            self.state.chosen = self._freeze(x) if self.state.fixed else self._choose(x, tensors["moe_gate"])
            experts, _ = self._chosen()
            slots = x.unsqueeze(-2).expand(*experts.shape, x.shape[-1])
            result = self.base_layer(x).unsqueeze(-2) + self.formula(tensors, self.settings, slots, experts)
        elif len(tensors["moe_lora_A"]) > 1:
            experts, weights = self._chosen()
            each = self.base_layer(x) + self.formula(tensors, self.settings, x, experts)
            result = (weights.unsqueeze(-1) * each).sum(-2)
        else:
            everyone = torch.zeros(x.shape[:-1], dtype=torch.int64)
            result = self.base_layer(x) + self.formula(tensors, self.settings, x, everyone)
        return result

    def _choose(self, x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        """By the router, which is noted: how it weighs, and how narrow its choices are."""
        assert self.number is not None
        k, p = int(self.settings["top_k"]), torch.softmax(x @ gate.T, -1)
        ranked = p.sort(-1, descending=True)
        experts = ranked.indices[..., :k].sort(-1).values
        weights = p.gather(-1, experts)
        weights = weights / weights.sum(-1, keepdim=True)
        everyone = torch.zeros_like(p).scatter(-1, experts, weights)
        self.state.see(self.number, self.state.as_rows(everyone))
        if k < p.shape[-1]:
            gap = ranked.values[..., k - 1] - ranked.values[..., k]
            self.state.narrow.setdefault(self.number, []).append(gap.reshape(len(p), -1).min(1).values)
        return experts, weights

    def _freeze(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """By the feed-forward's frozen route, of whose equal weights the first experts' run."""
        assert self.number is not None
        fixed = self.state.fixed[self.number]
        experts = fixed.sort(descending=True, stable=True).indices[: int(self.settings["top_k"])].sort().values
        shape = (*x.shape[:-1], len(experts))
        return experts.expand(shape), fixed[experts].to(x.dtype).expand(shape)

    def _chosen(self) -> tuple[Tensor, Tensor]:
        assert self.state.chosen is not None
        return self.state.chosen


class _Model(FormulaModel):
    tuner_layer_cls = _Layer
    state_cls = _Rows


class MixLoraReference(RoutedReference, formula=_expert):
    """One adapter of all tasks; every token chooses experts in every feed-forward."""

    name: ClassVar[str] = "mixlora"
    title: ClassVar[str] = "MixLoRA"
    tensor_part: ClassVar[str] = ".moe_"
    router_parts: ClassVar[tuple[str, ...]] = ("moe_gate",)
    router_tensor: ClassVar[str] = "moe_gate"
    model: ClassVar[type[FormulaModel]] = _Model

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return config.get("peft_type") == "MIXLORA"

    def together(self, task: int, count: int) -> Hashable:
        """Tasks share all but their frozen routes, of which a forward has one task's."""
        return task == count

    def slots(self, layer: Any) -> int:
        """The first layers of a feed-forward give one for each expert that a token has chosen."""
        return int(layer.settings["top_k"]) if "moe_gate" in layer.tensors else 1

    def modules(self, files: AdapterFiles) -> list[str]:
        return list(files.shapes(".moe_lora_A"))

    def numbers(self, files: AdapterFiles, modules: Collection[str]) -> dict[str, int]:
        """A router for each feed-forward: its first layers stand together and have the same gate."""
        numbers: dict[str, int] = {}
        gates: list[tuple[str, Tensor]] = []
        for module in sorted(modules, key=by_number):
            parent, gate = module.rpartition(".")[0], files.tensors.get(f"{PREFIX}{module}.moe_gate")
            if gate is None:
                continue
            same = [at for at, (place, other) in enumerate(gates) if place == parent and torch.equal(gate, other)]
            numbers[module] = same[0] if same else len(gates)
            if not same:
                gates.append((parent, gate))
        return numbers


REFERENCE = MixLoraReference()
