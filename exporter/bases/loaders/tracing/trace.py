"""Tracing a transformers model into an ONNX graph with a free batch and length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from eptx._one_line import one_line
from eptx.errors import NotSupportedError
from eptx.exporter.bases.loaders.tracing.sample import samples
from eptx.exporter.bases.passes.bfloat16 import widen_bfloat16

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: The beginnings of operators that give something else at each run.
_RANDOM = ("Random", "Bernoulli", "Multinomial")


@dataclass(frozen=True)
class Traced:
    """A graph that was traced.

    Attributes:
        graph: the graph.
        axes: input -> axis -> the name of a free axis.
        idle: the linear layers whose outputs no output of the model needs: its forward does not call them, reads their
            weights without them (WavLM's attention), or drops what they give (SigLIP's pooler, before a classifier).
            An adapter on such a layer changes nothing.
    """

    graph: ir.Model
    axes: Mapping[str, Mapping[int, str]]
    idle: frozenset[str]


def trace(model: PreTrainedModel, folder: Path, unread: frozenset[str] = frozenset()) -> Traced:
    """Exports a model with transformers' ONNX exporter, neither optimized nor fused.

    Args:
        model: in evaluation mode, with no cache.
        folder: of the base.
        unread: inputs to leave out.

    Returns:
        the graph; its inputs and outputs have the names of transformers.

    Raises:
        NotSupportedError: the class takes other inputs than texts, images and sound, or the exporter cannot trace it.
        BaseModelError: nothing says how large an image is.
    """
    refusals = []
    for deferred in (False, True):
        for sample in samples(model, folder, unread):
            try:
                graph = export_onnx(model, sample.inputs, sample.shapes, deferred=deferred)
                return Traced(graph, sample.axes, _idle(model, sample.inputs, graph))
            except NotSupportedError as error:
                refusals.append(error)
    raise refusals[0]


def _idle(model: Any, inputs: Mapping[str, Any], graph: ir.Model) -> frozenset[str]:
    """The linear layers whose outputs no output needs; none where the model does not run outside of a trace.

    The graph tells which may be: their weights are not in it. That the outputs stay while those of the layers change
    proves it.
    """
    import torch

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    held = _held(model, graph)
    dropped = {name for name, layer in layers.items() if id(layer.weight) not in held}
    called: set[str] = set()

    def hook(name: str) -> Callable[..., Any]:
        def changed(_layer: Any, _inputs: Any, output: Any) -> Any:
            called.add(name)
            return output + output.cos() if name in dropped else output

        return changed

    try:
        with torch.no_grad():
            wanted = model(**inputs)
            hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
            try:
                found = model(**inputs)
            finally:
                for each in hooks:
                    each.remove()
    except Exception:  # whatever the code of an architecture raises on so little
        return frozenset()
    tensors = [name for name, value in wanted.items() if isinstance(value, torch.Tensor)]
    same = all(torch.equal(wanted[name], found[name]) for name in tensors)
    return (frozenset(layers) - called) | (dropped if same else set())


def _held(model: Any, graph: ir.Model) -> set[int]:
    """The ids of the parameters that the outputs of a graph are computed from."""
    seen: set[ir.Node] = set()
    names: set[str] = set()
    values = list(graph.graph.outputs)
    while values:
        value = values.pop()
        names.add(str(value.name))
        node = value.producer()
        if node is not None and node not in seen:
            seen.add(node)
            values.extend(each for each in node.inputs if each is not None)
    return {id(each) for name, each in model.named_parameters(remove_duplicate=False) if name in names}


def export_onnx(
    model: Any, inputs: Mapping[str, Any], shapes: Mapping[str, Any], *, deferred: bool = False
) -> ir.Model:
    """Exports a module, neither optimized nor fused.

    Args:
        model: has a transformers ``config``.
        inputs: examples of its arguments: tensors, or dictionaries of them, whose names are joined by dots.
        shapes: which of their axes are free, in the same structure.
        deferred: whether the exporter may leave conditions on sizes unproven, such as that a convolution leaves
            anything of a recording. ONNX Runtime refuses what does not fit.

    Raises:
        NotSupportedError: the exporter cannot trace it.
    """
    from transformers.exporters import exporter_onnx

    exporter: Any = exporter_onnx  # not annotated
    _multiply_rows(model)
    # unoptimized: constant folding would merge weights into products of constants (DeBERTa's relative
    # positions)
    config = exporter.OnnxConfig(
        dynamic_shapes=dict(shapes), optimize=False, prefer_deferred_runtime_asserts_over_guards=deferred
    )
    try:
        exported = exporter.OnnxExporter().export(model, dict(inputs), config=config)
    except Exception as e:  # torch.export and the exporter fail with any class
        half_of = getattr(model, "half_of", None)
        kind = type(model if half_of is None else half_of).__name__
        message = f"transformers cannot export a {kind} to ONNX ({type(e).__name__}: {one_line(e)})"
        one = "if you have it as ONNX, give that with --base-onnx"
        advice = one if half_of is None else "docs/supported.md lists the encoder-decoders that eptx exports"
        raise NotSupportedError(f"{message}; {advice}") from None
    program: ir.Model = exported.program
    drawn = next((node.op_type for node in program.graph.all_nodes() if node.op_type.startswith(_RANDOM)), None)
    if drawn is not None:
        raise NotSupportedError(
            f"a {type(model).__name__} draws random numbers whenever it runs ({drawn}), so that no two answers are the "
            "same: train and export a class that draws none (ViTModel has ViTMAE's weights)"
        )
    widen_bfloat16(program)
    return program


def _multiply_rows(model: Any) -> None:
    """Has transformers' ``Conv1D`` (GPT-2's linear layer) multiply rows as they lie, not flattened.

    Fusions take away the flattening before a product, and leave the product with rows that it does not take.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    class Product(Conv1D):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.matmul(x, self.weight) + self.bias

    for module in model.modules():
        if type(module) is Conv1D:
            module.__class__ = Product
