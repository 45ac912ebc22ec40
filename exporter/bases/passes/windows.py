"""Attention windows of a decoder, put into a graph of GenAI's builder.

The builder (0.18) looks for them in ``layer_types``, which Mistral and Phi-3 do not have. They are read here as the
models' own code reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from eptx.exporter.bases.not_built import NotBuiltError

_LAYER = re.compile(r"\.(\d+)\.")
_PAST = 3


def set_windows(graph: ir.Graph, parsed: Any) -> None:
    """Has every layer see as far as in transformers.

    Args:
        graph: changed in place.
        parsed: transformers' configuration of the base.

    Raises:
        NotBuiltError: a layer has a window or a cap, and its attention operator has none.
    """
    nodes = dict(_by_layer(graph))
    capped = parsed.attn_logit_softcapping if "attn_logit_softcapping" in type(parsed).__dataclass_fields__ else None
    for layer, size in enumerate(_windows(parsed)):
        if layer in nodes:
            nodes[layer].attributes["local_window_size"] = ir.AttrInt64("local_window_size", size)
        elif capped or 0 < size < parsed.max_position_embeddings:
            does = "caps its scores" if capped else f"sees the last {size} tokens only"
            problem = f"layer {layer} {does}, which its attention in this graph cannot"
            raise NotBuiltError(f"{problem}; for cuda use --precision fp16 or int4")


def _windows(parsed: Any) -> list[int]:
    """Each layer's window: how many tokens it sees, the last one itself; -1 for all of them.

    ``local_window_size`` counts so too. A key that the configuration's class does not declare is one that the model's
    code does not read.
    """
    declared = type(parsed).__dataclass_fields__
    size = parsed.sliding_window if "sliding_window" in declared else None
    kinds = parsed.layer_types if "layer_types" in declared else None
    kinds = kinds or ["sliding_attention"] * parsed.num_hidden_layers
    return [int(size) if size and kind == "sliding_attention" else -1 for kind in kinds]


def _by_layer(graph: ir.Graph) -> Iterator[tuple[int, ir.Node]]:
    """Attention operators by the number of the cache that they read."""
    for node in graph:
        past = node.inputs[_PAST] if node.op_type == "GroupQueryAttention" else None
        found = _LAYER.search(past.name or "") if past is not None else None
        if found:
            yield int(found[1]), node
