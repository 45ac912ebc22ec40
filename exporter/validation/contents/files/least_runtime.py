"""Which ONNX Runtime ``eptx.json`` says that a bundle needs, compared with what its model files hold.

The exporter says it of the graphs before they are written. Here the files are read: their versions, and every node of
their graphs, nested graphs and functions. The releases of IR versions and opsets stand here once more on purpose (from
docs/Versioning.md of ONNX Runtime); when operators of com.microsoft came is known from one table alone, which
`make old-ort` compares with ONNX Runtime itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir

from eptx.bundle import Manifest
from eptx.runtime.ort.contrib import operator_needs
from eptx.runtime.validation.check import Check

_FIELD = "eptx.json: onnxruntime"
#: Minor number of a release -> the newest IR version and opset that it reads.
_READS = {
    15: (9, 19),
    17: (9, 20),
    18: (10, 21),
    21: (10, 22),
    23: (11, 23),
    24: (13, 25),
    25: (13, 26),
}
#: The first that takes functions in a model: 1.15 mixes up names in some graphs.
_FUNCTIONS = 16


def compare_least_runtime(manifest: Manifest, models: Mapping[str, ir.Model]) -> list[Check]:
    """Compares ``onnxruntime`` with the models.

    Args:
        manifest: of the bundle.
        models: file -> the model that it holds.
    """
    said = manifest.onnxruntime
    if said is None:
        return [Check(_FIELD, "unchecked", why="the bundle does not say which ONNX Runtime it needs")]
    versions = {
        "ir_version": (said.ir_version, max(model.ir_version for model in models.values())),
        "opset": (said.opset, max(_opset(model) for model in models.values())),
    }
    wrong = {
        name: f"says {mine}; the models have {theirs}" for name, (mine, theirs) in versions.items() if mine != theirs
    }
    release = _release(models.values(), manifest.provider)
    if release is None or said.version != f"1.{release}":
        newest = "more than eptx knows of" if release is None else f"1.{release}"
        wrong["version"] = f"says {said.version}; the models need {newest}"
    return [Check(f"{_FIELD}.{name}", "compared", wrong.get(name)) for name in ("version", *versions)]


def _opset(model: ir.Model) -> int:
    imports = [model.opset_imports, *(function.opset_imports for function in model.functions.values())]
    return max(own.get("", own.get("ai.onnx", 0)) for own in imports)


def _release(models: Iterable[ir.Model], provider: str) -> int | None:
    """The minor number of the first release that has all; None where no known one has."""
    needed = [min(_READS)]
    for model in models:
        versions = model.ir_version, _opset(model)
        fits = [minor for minor, reads in _READS.items() if reads[0] >= versions[0] and reads[1] >= versions[1]]
        if not fits:
            return None
        needed += [min(fits), *([_FUNCTIONS] if model.functions else [])]
        for node in _nodes(model):
            if node.domain != "com.microsoft":
                continue
            needs = operator_needs(node.op_type, list(node.attributes), len(node.inputs), provider)
            if needs is None:
                return None
            needed += [minor for _, minor in needs.values()]
    return max(needed)


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node, however deep."""
    open_ = [iter(model.graph), *(iter(function) for function in model.functions.values())]
    while open_:
        for node in open_.pop():
            yield node
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    open_.append(iter(attribute.as_graph()))
                elif attribute.type == ir.AttributeType.GRAPHS:
                    open_ += [iter(graph) for graph in attribute.as_graphs()]
