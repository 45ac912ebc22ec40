"""A bundle whose weights are in blocks of few bits: the reference multiplies by the same weights.

Otherwise the quantisation's error, a thousand times rounding, would be held against the adapter. That the weights are
the base's (of a static bundle, the base's with one task in them, as the released forward has it) is checked apart:
each must be within one step of the quantiser, and of a task's update, far smaller than a step at most places, all
must be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.exporter.base._nbits import dequantise, is_nbits, nbits_shape, step
from eptx.exporter.reference import ReferenceModel
from eptx.exporter.validation.distance import LIMIT

#: What a weight may be off by, in steps; the quantiser clips its largest ones.
_STEPS = 1.01
_EMBEDDING = "GatherBlockQuantized"


class Quantised:
    """The quantised weights of a bundle.

    Attributes:
        wrong: linear layer -> how its weight is not what it should be.
        effects: adapted module of a static bundle -> by how many deviations of what the quantiser's error makes of it
            the share of its task's update that is there would be off, if none of it were.
    """

    def __init__(self, model: ir.Model) -> None:
        self._nodes = {_module(node): node for node in model.graph if is_nbits(node)}
        self._embedding = next((node for node in model.graph if node.op_type == _EMBEDDING), None)
        self.wrong: dict[str, str] = {}
        self.effects: dict[str, float] = {}

    @classmethod
    def of(cls, bundle: Bundle) -> Quantised | None:
        """The weights of a bundle, None if they are not quantised."""
        if bundle.manifest.precision != "int4":
            return None
        return cls(ir.load(bundle.model.absolute()))

    def compare(self, reference: ReferenceModel, folded: Mapping[str, np.ndarray]) -> None:
        """Compares every weight with the base's, or with what it is folded to (module -> float64 [out, in])."""
        modules = {name: module for module, name in reference.names.items()}
        for name, linear, weight, steps in self._weights(reference):
            base = linear.weight.detach().double().numpy()
            module = modules.get(name, name)
            wanted = folded.get(module, base)
            off = float((np.abs(weight - wanted) / np.maximum(steps, 1e-30)).max())
            if off > _STEPS:
                self.wrong[module] = f"its weight is {off:.3g} steps of its quantisation from what it should be"
            elif module in folded:
                self._look_for(module, wanted - base, weight - wanted)

    def _look_for(self, module: str, update: np.ndarray, error: np.ndarray) -> None:
        """Whether all of an update is there: the quantiser's error knows nothing of it, so its share in it is noise."""
        size = float(np.square(update).sum())
        if size == 0.0:
            return
        deviation = float(np.sqrt(np.square(error).mean() / size))
        self.effects[module] = 1.0 / max(deviation, 1e-30)
        share = 1.0 + float((error * update).sum()) / size
        if abs(share - 1.0) > LIMIT * deviation:
            self.wrong[module] = f"its weight holds {share:.3g} times the task's update"

    def put_in(self, reference: ReferenceModel) -> None:
        """Has the reference multiply by these weights."""
        model = reference.model
        embedding = model.get_input_embeddings()
        tied = embedding.weight is getattr(model.get_output_embeddings(), "weight", None)
        for _, linear, weight, _ in self._weights(reference):
            linear.weight = nn.Parameter(torch.from_numpy(weight).to(linear.weight.dtype), requires_grad=False)
        if self._embedding is not None:
            if not tied:
                raise BundleError("the model's embeddings are quantised apart from its head: eptx cannot read them")
            embedding.weight = model.get_output_embeddings().weight

    def _weights(self, reference: ReferenceModel) -> Iterator[tuple[str, nn.Linear, np.ndarray, np.ndarray]]:
        """Of every linear layer that is quantised: its name, the layer, its weight and its steps, [out, in]."""
        linears = _linears(reference.model)
        for found, node in self._nodes.items():
            parts = [found]
            if found not in linears:
                parent, _, packed = found.rpartition(".")
                parts = [f"{parent}.{x}_proj" for x in "qkv"] if packed == "qkv_proj" else []
            width = sum(linears[part].out_features for part in parts if part in linears)
            weight, steps = dequantise(node), step(node)
            if width != nbits_shape(node)[1] or weight is None or steps is None:
                raise BundleError(f"{node.name}: eptx cannot tell whose quantised weight this is")
            start = 0
            for part in parts:
                stop = start + linears[part].out_features
                yield part, linears[part], weight[start:stop], steps[start:stop]
                start = stop


def _module(node: ir.Node) -> str:
    """The module that a product of GenAI's builder is named after, in transformers' words."""
    name = (node.name or "").rpartition("/")[0]
    return name.strip("/").replace("/", ".")


def _linears(model: Any) -> dict[str, nn.Linear]:
    """The base's linear layers by name, those inside adapted ones too."""
    found: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        layer = getattr(module, "base_layer", module)
        if isinstance(layer, nn.Linear) and not name.endswith(".base_layer"):
            found[name] = layer
    return {name: layer for name, layer in found.items() if ".lora_" not in name}
