"""Compares every tensor of the trained model with those of a bundle's graphs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx._one_line import one_line
from eptx.bundle import Bundle
from eptx.exporter.validation.contents.tensors.attention import compare_attention
from eptx.exporter.validation.contents.tensors.difference import difference
from eptx.exporter.validation.contents.tensors.duplicates import damaged_duplicates
from eptx.exporter.validation.contents.tensors.graph_tensors import GraphTensor, read_graph_tensors
from eptx.exporter.validation.contents.tensors.match import Match, find, find_form, find_shifted
from eptx.exporter.validation.contents.tensors.model_tensors import ModelTensor, read_model_tensors
from eptx.exporter.validation.contents.tensors.quantized import QuantizedCapacity
from eptx.exporter.validation.contents.tensors.rotary import compare_rotary
from eptx.exporter.validation.contents.tensors.task_tables import Tables, compare_task_tables
from eptx.exporter.validation.contents.tensors.traced_forward import Trace, trace_forward
from eptx.runtime.validation.check import Check


def compare_tensors(
    bundle: Bundle, model: Any, touched: Collection[str], tables: Tables, stacks: Mapping[str, np.ndarray]
) -> list[Check]:
    """Searches every parameter and float buffer that the model's outputs depend on in the bundle's graphs.

    The adapter's own tensors are left out: the outputs of the adapted modules show them.

    Args:
        bundle: on disk.
        model: the trained model as transformers or PEFT loaded it, float32; nothing of it changes.
        touched: names of the tensors that the graph may hold with the task folded in.
        tables: the embeddings that tasks change, by the tasks that the graph serves.
        stacks: the experts' weights that the graph must hold with a task folded in; a run may not reach an expert.

    Returns:
        a check for every tensor, every rotary table and each layer's attention.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    graphs = _graphs(bundle)
    manifest = bundle.manifest
    given = manifest.inputs if manifest.encoder is None else manifest.encoder.inputs
    returned = {value.name for graph in graphs.values() for value in graph.outputs if value.name}
    try:
        trace = trace_forward(base, given, returned)
    except Exception as error:  # whatever a model does with the least of inputs
        why = f"eptx cannot run {base.config.model_type} to see which tensors it uses: {one_line(error)}"
        return [Check("the base's tensors", "unchecked", why=why)]
    held = [one for side, graph in graphs.items() for one in read_graph_tensors(graph, side or None)]
    changed = {f"{name}.weight" for own in tables.values() for name in own}
    checks = _compare(base, trace, held, QuantizedCapacity(graphs.values()), touched, changed, stacks)
    main = list(graphs.values())[-1]
    shown = compare_task_tables(graphs, tables)
    return [*checks, *shown, *compare_rotary(base, main), *compare_attention(base, main, trace)]


def _graphs(bundle: Bundle) -> dict[str, ir.Graph]:
    """Side -> graph; a single graph has the side ""."""
    encoder = bundle.manifest.encoder
    files = {"": bundle.model} if encoder is None else {"encoder": bundle.path / encoder.file, "decoder": bundle.model}
    return {side: ir.load(path.absolute()).graph for side, path in files.items()}


def _compare(
    base: Any,
    trace: Trace,
    held: Sequence[GraphTensor],
    quantized: QuantizedCapacity,
    touched: Collection[str],
    changed: Collection[str],
    stacks: Mapping[str, np.ndarray],
) -> Iterator[Check]:
    read = read_model_tensors(base, trace, touched, stacks)
    tensors = {tensor.name: tensor for tensor in read if tensor.name not in changed}
    found = {name: find(tensor, held) for name, tensor in tensors.items() if not tensor.touched}
    for match in found.values():
        if match is not None:
            match.held.taken.append((match.turn, match.start, match.stop))
    absent = [name for name, match in found.items() if match is None and not find_form(tensors[name], held)]
    excused = quantized.excused([tensors[name] for name in absent])
    wrong = _disordered(tensors, found) | damaged_duplicates(
        [tensors[name] for name in found if name not in absent], held
    )
    for name, tensor in tensors.items():
        if tensor.touched:
            yield Check(name, "run", why="the graph holds it with its task")
        elif name not in absent:
            yield Check(name, "compared", wrong.get(name))
        elif name in excused:
            yield Check(name, "run", why="quantized: see its bounds")
        else:
            yield _absent(tensor, held)


def _absent(tensor: ModelTensor, held: Sequence[GraphTensor]) -> Check:
    if find_shifted(tensor, held):
        return Check(tensor.name, "run", why="the graph holds it times a number, or plus a row; every run uses those")
    wrong = difference(tensor, held)
    if wrong is not None:
        return Check(tensor.name, "compared", wrong)
    if not tensor.array.any():
        return Check(tensor.name, "run", why="it is zero everywhere, and the graph leaves it out")
    return Check(tensor.name, "run", why="the graph holds it in another form; every run uses all of it")


def _disordered(tensors: dict[str, ModelTensor], found: dict[str, Match | None]) -> dict[str, str]:
    """Projections that are packed for attention in another order than the model's."""
    packed: dict[tuple[int, str, str], list[tuple[ModelTensor, Match]]] = defaultdict(list)
    for name, match in found.items():
        if match is not None and match.stop - match.start < len(match.held.turned(match.turn)):
            packed[(id(match.held), *tensors[name].group)].append((tensors[name], match))
    wrong: dict[str, str] = {}
    for members in packed.values():
        held, turn = members[0][1].held, members[0][1].turn
        if not held.for_attention or sum(len(one.array) for one, _ in members) != len(held.turned(turn)):
            continue
        inorder = np.concatenate([one.array for one, _ in members]).astype(held.rows.dtype)
        if not np.array_equal(held.turned(turn), inorder):
            names = ", ".join(one.name.rpartition(".")[0].rpartition(".")[2] for one, _ in members)
            wrong |= {one.name: f"is packed in another order than {names}" for one, _ in members}
    return wrong
