"""References of int4 decoders: what their graphs multiply by, put back into PyTorch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
from safetensors.numpy import load_file, save_file

from eptx.bundle import Bundle
from eptx.exporter.bases import load_genai
from eptx.exporter.bases.products.nbits import dequantize, is_nbits


def as_float(bundle: Bundle) -> None:
    """Has the products keep their activations in float32."""
    model = ir.load(bundle.model)
    for node in model.graph:
        if is_nbits(node):
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 1)
    ir.save(model, bundle.model)


def as_half(adapter: Path) -> Path:
    """The adapter with every factor rounded to float16, as an int4 bundle stores it."""
    path = adapter / "adapter_model.safetensors"
    save_file({name: a.astype(np.float16).astype(np.float32) for name, a in load_file(path).items()}, path)
    return adapter


def dequantized(base: Path, workspace: Path) -> Path:
    """The base's folder with the weights that its int4 graph multiplies by."""
    graph = load_genai(base, workspace / "int4", precision="int4")
    folder = workspace / "dequantized"
    shutil.copytree(base, folder)
    weights = load_file(base / "model.safetensors")
    packed: dict[str, list[tuple[str, str]]] = {}
    for module, place in graph.places.items():
        packed.setdefault(place.split("[")[0], []).append((module, place))
    for node in graph.model.graph:
        if not is_nbits(node) or node.name is None:
            continue
        matrix = dequantize(node)
        assert matrix is not None
        modules = [module for module, _ in packed.get(node.name, [])] or [".".join(node.name.split("/")[1:-1])]
        start = 0
        for module in modules:
            name = f"{module}.weight" if f"{module}.weight" in weights else "model.embed_tokens.weight"
            stop = start + len(weights[name])
            weights[name] = np.ascontiguousarray(matrix[start:stop])
            start = stop
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
