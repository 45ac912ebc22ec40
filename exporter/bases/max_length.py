"""How many tokens a base reads, seen on its graph: the rows of its table of positions, from where it starts in it.

Models number positions in many ways: from 0, from behind the padding's id (RoBERTa, MPNet, ESM), from 2 (BART). So what
the graph asks its tables for is computed for a row of a few tokens. The table that is asked for consecutive numbers is
that of positions, and the first number is where it starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx._one_line import one_line
from eptx.errors import BaseModelError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.loaders.genai import is_genai
from eptx.exporter.bases.part import open_part
from eptx.manifest.names import PAST

#: How many tokens tell consecutive numbers from others.
_TOKENS = 6
#: Tokens that every vocabulary has, most of them ordinary ones.
_FEW = 30
#: ONNX Runtime's names of what inputs may be; int64 else.
_TYPES = {"int32": np.int32, "float": np.float32, "float16": np.float16, "bool": np.bool_}


def longest(graph: BaseGraph) -> int | None:
    """The most tokens of a text that a base reads; None where nothing limits it, or it reads no tokens.

    Without a table of positions in the graph it is what ``config.json`` says.

    Args:
        graph: of a base, before anything is changed; of an encoder-decoder, the one that reads the text, or the one
            that writes the answer.

    Raises:
        BaseModelError: the part of the graph that computes positions does not run.
    """
    if graph.longest is not None:
        return graph.longest  # who made the graph of a decoder has counted its rotary positions
    inner = graph.model.graph
    if all(value.name != "input_ids" for value in inner.inputs):
        return None
    tables = [] if is_genai(graph) else [node for node in inner if _is_table(node)]
    for node, rows in zip(tables, _asked(graph.model, tables, graph.config), strict=True):
        start = _start(rows[..., 0] if node.op_type == "GatherND" else rows)
        if start is not None:
            return _height(node) - start
    return positive(text_config(graph.config).get("max_position_embeddings"))


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What ``config.json`` says of the model that reads the text, of a base that has one beside others (CLIP)."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, Mapping) else config


def positive(value: Any) -> int | None:
    """A number of ``config.json`` that counts something; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _is_table(node: ir.Node) -> bool:
    """Whether a node picks rows of a table [rows, width], by numbers that the graph computes."""
    return (
        node.op_type in ("Gather", "GatherND")
        and node.domain in ("", "ai.onnx")
        and node.attributes.get_int("axis", 0) == 0
        and node.attributes.get_int("batch_dims", 0) == 0
        and _height(node) > 0
        and node.inputs[1] is not None
        and node.inputs[1].producer() is not None
    )


def _height(node: ir.Node) -> int:
    """How many rows a look-up's table has; 0 if it is none."""
    table = node.inputs[0]
    tensor = table.const_value if table is not None else None
    rows = tensor.shape[0] if tensor is not None and len(tensor.shape) == 2 else 0
    return rows if isinstance(rows, int) else 0


def _start(rows: np.ndarray) -> int | None:
    """The first of consecutive numbers [length] or [1, length]; None of others."""
    if rows.dtype.kind not in "iu" or rows.size != _TOKENS or rows.shape[-1:] != (_TOKENS,):
        return None
    first = int(rows.flat[0])
    return first if first >= 0 and (rows.ravel() == np.arange(first, first + _TOKENS)).all() else None


def _asked(model: ir.Model, tables: Sequence[ir.Node], config: Mapping[str, Any]) -> list[np.ndarray]:
    """The numbers of the rows that each table is asked for by one row of a few ordinary tokens."""
    if not tables:
        return []
    wanted = [str(node.inputs[1].name) for node in tables if node.inputs[1] is not None]
    names = list(dict.fromkeys(wanted))
    try:
        session = open_part(model, names)
        feeds = {value.name: _feed(value, config) for value in session.get_inputs()}
        found = dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:  # whatever a graph that somebody else wrote provokes
        raise BaseModelError(f"the base graph's positions cannot be computed: {one_line(error)}") from None
    return [np.asarray(found[name]) for name in wanted]


def _feed(value: Any, config: Mapping[str, Any]) -> np.ndarray:
    """One row of an input of the session: tokens, ones for the mask, zeros for the rest."""
    if value.name == "input_ids":
        row = np.array(_tokens(config)).reshape([1] * (len(value.shape) - 1) + [_TOKENS])
    elif value.name.endswith("attention_mask"):
        row = np.ones([1] * (len(value.shape) - 1) + [_TOKENS])
    else:
        free = 0 if value.name.startswith(PAST) else _TOKENS  # the first tokens of an answer
        row = np.zeros([1, *(size if isinstance(size, int) else free for size in value.shape[1:])])
    return row.astype(_TYPES.get(value.type.removeprefix("tensor(").removesuffix(")"), np.int64))


def _tokens(config: Mapping[str, Any]) -> list[int]:
    """Ordinary tokens, the largest first: no consecutive numbers, and no padding, which some models do not count."""
    special = {token for name, token in config.items() if name.endswith("_token_id") and isinstance(token, int)}
    known = min(positive(config.get("vocab_size")) or _FEW, _FEW)
    ordinary = [i for i in range(known) if i not in special]
    return ordinary[-_TOKENS:][::-1] if len(ordinary) >= _TOKENS else [*range(_TOKENS - 1, -1, -1)]
