"""Each layer's attention operator, compared with the model's layer: window, heads, scale and soft cap.

A window has an effect only on runs that are longer than it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from eptx.exporter.validation.contents.tensors.graph_tensors import live_nodes
from eptx.exporter.validation.contents.tensors.traced_forward import Trace
from eptx.runtime.validation.check import Check

_OPERATORS = ("GroupQueryAttention", "PagedAttention")
_LAYER = re.compile(r"\.(\d+)\.")
_PAST = 3


def compare_attention(base: Any, graph: ir.Graph, trace: Trace) -> list[Check]:
    """A check for every layer of a decoder whose graph has attention as one operator.

    Args:
        base: the transformers model.
        graph: the one that generates, or the only one.
        trace: of the model; it knows which layers have a window.
    """
    layers = {int(module.layer_idx): module for module in base.modules() if _is_attention(module)}
    nodes = dict(_by_layer(graph))
    if not nodes:
        return _shown_by_runs(base, trace)
    checks = []
    for layer, module in sorted(layers.items()):
        wrong = _wrong(base, module, nodes[layer], trace) if layer in nodes else "no attention operator has its cache"
        checks.append(Check(f"attention of layer {layer}", "compared", wrong))
    return checks


def _shown_by_runs(base: Any, trace: Trace) -> list[Check]:
    windowed = [layer for layer, has in trace.windowed.items() if has]
    if not windowed:
        return []
    why = f"the graph spells attention out; rows longer than {base.config.sliding_window} tokens show its window"
    return [Check("attention windows", "run", why=why)]


def _is_attention(module: Any) -> bool:
    return getattr(module, "layer_idx", None) is not None and hasattr(module, "scaling")


def _by_layer(graph: ir.Graph) -> Iterator[tuple[int, ir.Node]]:
    """The number and the node of each layer: by the cache that it reads, or else by the order in which layers run."""
    live = live_nodes(graph)
    for count, node in enumerate(node for node in graph if node in live and node.op_type in _OPERATORS):
        past = node.inputs[_PAST] if len(node.inputs) > _PAST else None
        named = _LAYER.search(past.name or "") if past is not None else None
        yield (int(named[1]) if named else count), node


def _wrong(base: Any, module: Any, node: ir.Node, trace: Trace) -> str | None:
    config = base.config
    heads = int(config.num_attention_heads)
    size = int(module.head_dim)
    attributes = node.attributes
    scale = attributes.get_float("scale", 0.0) or size**-0.5
    window = int(config.sliding_window) if trace.windowed.get(int(module.layer_idx)) else -1
    cap = getattr(module, "attn_logit_softcapping", None) or 0.0
    facts: list[tuple[str, float, float]] = [
        ("window", attributes.get_int("local_window_size", -1), window),
        ("num_heads", attributes.get_int("num_heads", 0), heads),
        ("kv_num_heads", attributes.get_int("kv_num_heads", 0), int(getattr(config, "num_key_value_heads", heads))),
        ("scale", scale, float(module.scaling)),
        ("softcap", attributes.get_float("softcap", 0.0), float(cap)),
    ]
    for name, found, expected in facts:
        if abs(found - expected) > 1e-6 * abs(expected):
            return f"{name} is {_said(name, found)}, the model's is {_said(name, expected)}"
    return None


def _said(name: str, value: float) -> str:
    return "none" if name == "window" and value < 0 else f"{value:.6g}"
