"""Rotary tables of a decoder, put into a graph of GenAI's builder.

The builder (0.18) knows some kinds of scaling, and not all of them rightly. Here the tables are what the model's own
rotary module computes, whatever its kind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from eptx._one_line import one_line
from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.bases.not_built import NotBuiltError

#: operator -> where its tables of cosines and sines are among its inputs.
_INPUTS = {"GroupQueryAttention": (7, 8), "RotaryEmbedding": (2, 3)}
_NAMES = ("cos_cache", "sin_cache")
#: What configurations call the number of positions.
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")
_CHANGES = (
    "config.json: rotary positions of kind {!r} (rope_type) change with the length of the text in their own way, which "
    "no graph with a cache follows: give a base with other positions"
)
#: Models that the builder knows whose code can turn a part of every head.
_PARTIAL = ("phi", "phi3", "nemotron")
#: Frequencies that GroupQueryAttention takes at a time.
_MULTIPLE = 8
#: Cosines and sines, float32 [positions, frequencies] each.
Tables = tuple[np.ndarray, np.ndarray]


def context(parsed: Any) -> int | None:
    """How many positions a graph of a base has; None where nothing limits it.

    ``longrope`` turns by other tables in texts that are longer than the model was first trained on. What is in a cache
    by then was turned by the first ones, and rows of one batch may be shorter; so a graph ends there.

    Args:
        parsed: transformers' configuration of the base.
    """
    said = next((getattr(parsed, name) for name in _LENGTHS if getattr(parsed, name, None)), None)
    rope = getattr(parsed, "rope_parameters", None) or {}
    first = rope["original_max_position_embeddings"] if rope.get("rope_type") == "longrope" else None
    return min((int(positions) for positions in (said, first) if positions), default=None)


def refuse_dynamic(parsed: Any) -> None:
    """Refuses rotary positions that a cache cannot hold: those of a token change when the text gets longer.

    Args:
        parsed: transformers' configuration of the base.

    Raises:
        NotSupportedError: it says so.
    """
    rope = getattr(parsed, "rope_parameters", None) or {}
    kinds = {each.get("rope_type") for each in (rope, *rope.values()) if isinstance(each, dict)}
    if "dynamic" in kinds:
        raise NotSupportedError(_CHANGES.format("dynamic"))


def rotary_tables(parsed: Any) -> Tables | None:
    """A model's cosines and sines at all of its positions; None of one without rotary positions.

    Args:
        parsed: transformers' configuration of the base.

    Raises:
        BaseModelError: transformers makes none of it.
        NotSupportedError: they are not the same in texts of every length.
    """
    module = _module(parsed)
    if module is None:
        return None
    whole = _tables(module, context(parsed) or 0)
    # "dynamic" changes past the last position only
    if any(not np.array_equal(table[:1], short) for table, short in zip(whole, _tables(module, 1), strict=True)):
        raise NotSupportedError(_CHANGES.format(parsed.rope_parameters["rope_type"]))
    return whole


def set_rotary(graph: ir.Graph, tables: Tables, parsed: Any) -> None:
    """Has a graph turn queries and keys as the model does.

    Args:
        graph: changed in place.
        tables: of the model, see `rotary_tables`.
        parsed: transformers' configuration of the base.

    Raises:
        BaseModelError: the model's own code cannot use them.
        NotSupportedError: the graph's operators cannot.
    """
    turned, size = 2 * tables[0].shape[1], getattr(parsed, "head_dim", None)
    size = size or parsed.hidden_size // parsed.num_attention_heads
    if turned != size and parsed.model_type not in _PARTIAL:
        problem = f"it turns {turned} of {size} values, which {parsed.model_type} cannot"
        raise BaseModelError(f"config.json: {problem}: correct partial_rotary_factor or head_dim")
    nodes = [node for node in graph if node.op_type in _INPUTS]
    readers = [(node, i) for node in nodes for i in _INPUTS[node.op_type] if i < len(node.inputs) and node.inputs[i]]
    if not readers or any(node.attributes.get_int("rotary_interleaved", 0) for node in nodes):
        raise NotBuiltError("the graph of GenAI's builder turns queries and keys in another way than the base")
    width = tables[0].shape[1]
    if width % _MULTIPLE and any(node.op_type == "GroupQueryAttention" for node, _ in readers):
        problem = f"the base turns {2 * width} values of every head"
        raise NotBuiltError(f"{problem}; GroupQueryAttention turns multiples of {2 * _MULTIPLE} only")
    old = list(dict.fromkeys(node.inputs[i] for node, i in readers))
    dtype = next((value.dtype for value in old if value is not None and value.dtype), ir.DataType.FLOAT)
    for node, i in readers:
        node.replace_input_with(i, None)
    for value in old:
        _drop(graph, value)
    new = _initializers(graph, tables, dtype)
    for node, i in readers:
        node.replace_input_with(i, new[_INPUTS[node.op_type].index(i)])


def _module(parsed: Any) -> Any:
    """The model's rotary module, on the CPU. The model itself is made without memory for its weights."""
    import torch
    import transformers

    auto: Any = transformers.AutoModelForCausalLM  # transformers annotates a part of its functions
    try:
        with torch.device("meta"):
            model = auto.from_config(parsed)
        kinds = {type(module) for module in model.modules() if hasattr(module, "inv_freq")}
        return kinds.pop()(parsed) if kinds else None
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as e:
        raise BaseModelError(f"config.json: its rotary positions cannot be computed: {one_line(e)}") from None


def _tables(module: Any, count: int) -> Tables:
    """The tables of a text of `count` tokens."""
    import torch

    with torch.no_grad():
        found = module(torch.zeros(1, 1, 1), torch.arange(count)[None])
    width = found[0].shape[-1] // 2
    cosines, sines = (table[0].float().numpy() for table in found)
    if not all(np.isfinite(table).all() for table in (cosines, sines)):
        raise BaseModelError("config.json: its rotary positions are no numbers: correct rope_parameters")
    if not all(np.array_equal(table[:, :width], table[:, width:]) for table in (cosines, sines)):
        raise NotBuiltError("the base's rotary positions are laid out in a way that eptx does not know")
    return cosines[:, :width].copy(), sines[:, :width].copy()


def _drop(graph: ir.Graph, value: ir.Value | None) -> None:
    """Takes what nothing reads any more out of the graph."""
    if value is None or value.uses():
        return
    maker = value.producer()
    if maker is None:
        graph.initializers.pop(value.name or "", None)
    elif not any(output.uses() for output in maker.outputs):
        inputs = set(maker.inputs)
        graph.remove(maker, safe=True)
        for given in inputs:
            _drop(graph, given)


def _initializers(graph: ir.Graph, tables: Tables, dtype: ir.DataType) -> list[ir.Value]:
    arrays = (table.astype(dtype.numpy()) for table in tables)
    return [add_initializer(graph, name, array) for name, array in zip(_NAMES, arrays, strict=True)]
