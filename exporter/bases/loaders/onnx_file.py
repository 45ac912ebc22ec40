"""An existing .onnx file as a base graph: read with suspicion, kept as it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import onnx_ir as ir

from eptx._one_line import one_line
from eptx.bundle.genai_config import GENAI_CONFIG
from eptx.bundle.onnx_scan import ExternalData, OnnxScan, scan_onnx
from eptx.errors import BaseModelError, BundleError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.loaders.genai import as_genai
from eptx.exporter.bases.passes.opset import raise_opset
from eptx.exporter.bases.passes.tidy import tidy
from eptx.exporter.bases.products.quantized import check_coarse
from eptx.exporter.bases.weights.model import base_prefix, read_config
from eptx.files.links import check_links
from eptx.files.safe_files import fingerprint, is_contained_name
from eptx.manifest.names import OPERATOR_DOMAIN, ORT_DOMAINS
from eptx.progress import step
from eptx.runtime.ort.sessions import open_session, session_options

__all__ = ["MIN_OPSET", "load_onnx"]

MIN_OPSET = 13


def load_onnx(path: Path, *, folder: Path | None = None) -> BaseGraph:
    """Reads a base model that is already ONNX.

    Args:
        path: the .onnx file, with or without external data beside it.
        folder: the transformers folder it was made from, for its configuration and weights; by default the
            file's own folder when that holds a ``config.json``.

    Returns:
        the graph, with its own input and output names; free axes of text inputs are renamed ``batch`` and
        ``length``. With a ``genai_config.json`` beside the file it is a decoder that generates.

    Raises:
        BaseModelError: the file or its external data is missing, damaged, outside its folder or not a regular
            file; the graph is invalid, too old, or uses operators that ONNX Runtime does not have.
        NotSupportedError: more of it is quantized than its products.
    """
    path = path.absolute()
    with step("read the base graph"):
        scan = _scan(path)
        _check_operators(path, scan)
        files = _external_files(path, scan.external)
        model = _load(path)
        _normalize(model)
        _check_sizes(path, model)
        check_coarse(path.name, model.graph)
        tidy(model)
    if folder is None and (path.parent / "config.json").exists():
        folder = path.parent
    config = read_config(folder) if folder is not None else {}
    graph = BaseGraph(
        model=model,
        model_type=str(config.get("model_type", "")),
        config=config,
        folder=folder,
        fingerprint=fingerprint({path.name: path, **files}, error=BaseModelError),
        prefix=base_prefix(config) if config else "",
    )
    if not os.path.lexists(path.parent / GENAI_CONFIG):
        return graph
    check_links(path.parent, error=BaseModelError)
    return as_genai(graph, path.parent)


def _scan(path: Path) -> OnnxScan:
    try:
        return scan_onnx(path)
    except BundleError as e:
        raise BaseModelError(str(e)) from None


def _check_operators(path: Path, scan: OnnxScan) -> None:
    versions = [version for domain, version in scan.opsets if domain in ("", "ai.onnx")]
    if not versions or min(versions) < MIN_OPSET:
        found = f"opset {min(versions)}" if versions else "no opset"
        raise BaseModelError(f"{path.name}: has {found}; export the base again with opset {MIN_OPSET} or later")
    if any(domain == OPERATOR_DOMAIN for domain, _ in scan.operators | scan.functions):
        raise BaseModelError(f"{path.name}: is already adapted by eptx; give the base model's own graph")
    unknown = {(d, name) for d, name in scan.operators if d not in ORT_DOMAINS} - scan.functions
    if unknown:
        domain, name = min(unknown)
        raise BaseModelError(f"{path.name}: uses {name} of domain {domain!r}, which plain ONNX Runtime does not have")


def _external_files(path: Path, references: list[ExternalData]) -> dict[str, Path]:
    """The external data files: regular, inside the model's folder, and as long as what is read of them."""
    sizes: dict[str, int] = {}
    for reference in references:
        name = reference.location
        if name not in sizes:
            sizes[name] = _regular_size(path, name)
        end = reference.offset + (reference.length or 0)
        if end > sizes[name]:
            raise BaseModelError(f"{name}: truncated: {path.name} reads to byte {end}, the file has {sizes[name]}")
    return {name: path.parent / name for name in sizes}


def _regular_size(path: Path, name: str) -> int:
    if not is_contained_name(name):
        raise BaseModelError(f"{path.name}: its external data {name[:80]!r} is not inside its folder")
    where = path.parent
    try:
        for part in name.split("/"):
            where = where / part
            status = where.lstat()
            if stat.S_ISLNK(status.st_mode):
                raise BaseModelError(f"{path.name}: its external data {name!r} is a symbolic link; put the file there")
    except OSError:
        raise BaseModelError(f"{path.name}: its external data {name!r} is missing") from None
    if not stat.S_ISREG(status.st_mode):
        raise BaseModelError(f"{path.name}: its external data {name!r} is not a regular file")
    return status.st_size


def _load(path: Path) -> ir.Model:
    try:
        # the path is absolute: onnx_ir checks that external data stays in the folder only then
        model = ir.load(path)
    except Exception as e:  # protobuf and onnx_ir raise unrelated classes
        raise BaseModelError(f"{path.name}: not a valid ONNX model: {one_line(e)}") from None
    _try_session(path)
    # protobuf hands over as bytes what is not UTF-8, and ONNX Runtime does not mind
    values = [value for graph in model.graphs() for value in (*graph.inputs, *graph.initializers.values())]
    for node in model.graph.all_nodes():
        values.extend(node.outputs)
        if isinstance(node.name, bytes):
            raise BaseModelError(f"{path.name}: the name of a node is not UTF-8")
    if any(isinstance(value.name, bytes) for value in values):
        raise BaseModelError(f"{path.name}: the name of a value is not UTF-8")
    return model


def _try_session(path: Path) -> None:
    """Lets ONNX Runtime judge the graph: its rules, not the onnx checker's, decide whether a bundle runs.

    (The checker refuses what ONNX Runtime's own optimizer writes, LayerNormalization at opset 14 for one.)
    """
    # constant folding of a hostile graph can allocate gigabytes; without prepacking it takes half the memory
    options = session_options(optimization="none", entries={"session.disable_prepacking": "1"})
    try:
        open_session(path, options)
    except Exception as e:  # one class per status code
        if type(e).__name__ != "NotImplemented":  # valid, but for another provider
            raise BaseModelError(f"{path.name}: ONNX Runtime cannot load it: {one_line(e)}") from None


def _normalize(model: ir.Model) -> None:
    """Functions inlined, weights as initializers and not as inputs, an opset that eptx's functions join."""
    from onnx_ir.passes import common

    if model.functions:
        common.InlinePass()(model)
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftConstantsToInitializersPass(size_limit=16)(model)
    raise_opset(model)
    used = {"", *(node.domain for node in model.graph.all_nodes())}
    for domain in [d for d in model.opset_imports if d not in used]:
        del model.opset_imports[domain]  # ONNX Runtime's optimizer imports every domain it knows


def _check_sizes(path: Path, model: ir.Model) -> None:
    """Every weight has as many bytes as its shape says, found out before anything reads it."""
    if not model.graph.inputs or not model.graph.outputs:
        raise BaseModelError(f"{path.name}: the graph has no {'outputs' if model.graph.inputs else 'inputs'}")
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None:
                raise BaseModelError(f"{path.name}: the weight {value.name!r} has no data")
            if isinstance(tensor, ir.ExternalTensor) and tensor.length not in (None, tensor.nbytes):
                sizes = f"{tensor.length} bytes, not {tensor.nbytes}"
                raise BaseModelError(f"{path.name}: the weight {value.name!r} has {sizes}")
