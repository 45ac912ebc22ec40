"""Every tensor of a trained model against what a bundle's graphs hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx.bundle import Bundle
from eptx.exporter.validation.check import Part
from eptx.exporter.validation.contents.tensors.attention import compare_attention
from eptx.exporter.validation.contents.tensors.difference import difference
from eptx.exporter.validation.contents.tensors.duplicates import hidden
from eptx.exporter.validation.contents.tensors.graph_tensors import Held, held_by
from eptx.exporter.validation.contents.tensors.match import Match, find, find_form, find_shifted
from eptx.exporter.validation.contents.tensors.model_tensors import Wanted, wanted
from eptx.exporter.validation.contents.tensors.quantized import Quantized
from eptx.exporter.validation.contents.tensors.rotary import compare_rotary
from eptx.exporter.validation.contents.tensors.traced_forward import Seen, watch


def compare_tensors(bundle: Bundle, model: Any, touched: Collection[str]) -> list[Part]:
    """Holds every parameter and float buffer that the model's outputs depend on against the bundle's graphs.

    The adapter's own tensors are none of these parts: what every adapted module computes shows them.

    Args:
        bundle: on disk.
        model: the trained model as transformers or PEFT loaded it, float32; it is as it was afterwards.
        touched: linear layers by their names in the model whose weights the graph may hold changed.

    Returns:
        a part for every tensor, for the rotary tables and for each layer's attention; `wrong` says what is wrong.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    graphs = _graphs(bundle)
    given = {value.name for graph in graphs.values() for value in graph.inputs if value.name}
    returned = {value.name for graph in graphs.values() for value in graph.outputs if value.name}
    try:
        seen = watch(base, given, returned)
    except ValueError as error:
        why = f"eptx cannot run {base.config.model_type} to see which tensors it uses: {error}"
        return [Part("the base's tensors", "neither", why=why)]
    held = [one for side, graph in graphs.items() for one in held_by(graph, side or None)]
    parts = _compare(base, seen, held, Quantized(graphs.values()), touched)
    main = list(graphs.values())[-1]
    return [*parts, *compare_rotary(base, main), *compare_attention(base, main, seen)]


def _graphs(bundle: Bundle) -> dict[str, ir.Graph]:
    """Side -> graph; "" where there is one."""
    encoder = bundle.manifest.encoder
    files = {"": bundle.model} if encoder is None else {"encoder": bundle.path / encoder.file, "decoder": bundle.model}
    return {side: ir.load(path.absolute()).graph for side, path in files.items()}


def _compare(
    base: Any, seen: Seen, held: Sequence[Held], quantized: Quantized, touched: Collection[str]
) -> Iterator[Part]:
    tensors = {tensor.name: tensor for tensor in wanted(base, seen, touched)}
    found = {name: find(tensor, held) for name, tensor in tensors.items() if not tensor.touched}
    for match in found.values():
        if match is not None:
            match.held.taken.append((match.turn, match.start, match.stop))
    absent = [name for name, match in found.items() if match is None and not find_form(tensors[name], held)]
    excused = quantized.excused([tensors[name] for name in absent])
    wrong = _disordered(tensors, found) | hidden([tensors[name] for name in found if name not in absent], held)
    for name, tensor in tensors.items():
        if tensor.touched:
            yield Part(name, "run", why="the graph holds it with its task")
        elif name not in absent:
            yield Part(name, "compared", wrong.get(name))
        elif name in excused:
            yield Part(name, "run", why="quantized: see its bounds")
        else:
            yield _absent(tensor, held)


def _absent(tensor: Wanted, held: Sequence[Held]) -> Part:
    if find_shifted(tensor, held):
        return Part(tensor.name, "run", why="the graph holds it times a number, or plus a row; every run uses those")
    wrong = difference(tensor, held)
    if wrong is not None:
        return Part(tensor.name, "compared", wrong)
    if not tensor.array.any():
        return Part(tensor.name, "run", why="it is zero everywhere, and the graph leaves it out")
    return Part(tensor.name, "run", why="the graph holds it in another form; every run uses all of it")


def _disordered(tensors: dict[str, Wanted], found: dict[str, Match | None]) -> dict[str, str]:
    """Projections that are packed for attention, which reads them in the order in which the model has them."""
    packed: dict[tuple[int, str, str], list[tuple[Wanted, Match]]] = defaultdict(list)
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
