"""The least release of ONNX Runtime that loads a bundle's graphs, and graphs that need no newer one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from eptx.bundle import OnnxRuntime
from eptx.errors import NotSupportedError
from eptx.exporter.bundle.lower import Lowest, lower
from eptx.exporter.bundle.older_nodes import inline_functions, use_older_nodes
from eptx.runtime.ort.contrib import operator_needs
from eptx.runtime.ort.releases import FUNCTIONS, IR_VERSIONS, OLDEST, OPSETS, Release, asked_release, first, shown


@dataclass(frozen=True)
class Need:
    """What a graph needs of ONNX Runtime.

    Attributes:
        what: in words.
        release: the first release that has it; None where no known one does.
    """

    what: str
    release: Release | None


def fit_oldest(models: Sequence[ir.Model], provider: str, asked: str | None) -> OnnxRuntime | None:
    """Has as old an ONNX Runtime as possible load a bundle's graphs.

    Args:
        models: the graphs; they are changed in place.
        provider: the execution provider that they are for.
        asked: the release that must load them; None: any.

    Returns:
        What ``eptx.json`` says of ONNX Runtime.

    Raises:
        NotSupportedError: the graphs need a newer one than was asked for.
    """
    for model in models:
        use_older_nodes(model, only_onnxruntime=asked is not None)
    lowered = [(model, lower(model)) for model in models]
    if asked is not None and asked_release(asked) < FUNCTIONS:
        for model in models:
            inline_functions(model)
    needed, most = least_release(lowered, provider)
    check_asked(asked, most)
    return needed


def least_release(models: Sequence[tuple[ir.Model, Lowest]], provider: str) -> tuple[OnnxRuntime | None, Need]:
    """What ``eptx.json`` says of ONNX Runtime, and what decides it.

    Args:
        models: the bundle's graphs, each with what lowering it gave.
        provider: the execution provider that they are for.

    Returns:
        The releases and versions, None where a graph holds something of no known release; and the need of the newest
        release, or of no known one.
    """
    needs = [need for model, lowest in models for need in _needs(model, lowest, provider)]
    most = max(needs, key=lambda need: (need.release is None, need.release or OLDEST))
    if most.release is None:
        return None, most
    ir_version = max(lowest.ir_version for _, lowest in models)
    opset = max(lowest.opset for _, lowest in models)
    return OnnxRuntime(shown(most.release), ir_version, opset), most


def check_asked(asked: str | None, need: Need) -> None:
    """Refuses a bundle that needs a newer release than was asked for.

    Raises:
        NotSupportedError: naming what needs it.
        UsageError: `asked` names no release.
    """
    if asked is None:
        return
    graph = f"--min-ort {asked}: the graph has {need.what}"
    if need.release is None:
        raise NotSupportedError(f"{graph}, and eptx knows no release of ONNX Runtime that has it: leave --min-ort out")
    if need.release > asked_release(asked):
        raise NotSupportedError(
            f"{graph}, which came with ONNX Runtime {shown(need.release)}: ask for that, or give another base"
        )


def _needs(model: ir.Model, lowest: Lowest, provider: str) -> Iterator[Need]:
    asks = "" if lowest.operator is None else f" ({lowest.operator})"
    yield Need(f"opset {lowest.opset}{asks}", first(OPSETS, lowest.opset))
    yield Need(f"IR version {lowest.ir_version}", first(IR_VERSIONS, lowest.ir_version))
    if model.functions:
        yield Need("operators of eptx's own", FUNCTIONS)
    bodies: Sequence[ir.Graph | ir.Function] = (model.graph, *model.functions.values())
    for node in (node for body in bodies for node in body.all_nodes()):
        if node.domain == "com.microsoft":
            found = operator_needs(node.op_type, list(node.attributes), len(node.inputs), provider)
            yield from [Need(node.op_type, None)] if found is None else [Need(*each) for each in found.items()]
