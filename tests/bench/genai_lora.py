"""LoRA as GenAI's own adapters do it, to compare with: factors as optional inputs, one adapter for a batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from eptx.exporter.bases import load_genai, locate
from eptx.exporter.bundle.clean import clean
from eptx.exporter.graph.editor import GraphEditor

Factors = Mapping[str, tuple[np.ndarray, np.ndarray]]


def write_genai_lora(
    base: Path, workspace: Path, modules: Sequence[str], rank: int, precision: str
) -> tuple[Path, Path]:
    """GenAI's model folder with LoRA at every module, and a file with one adapter of random numbers for it.

    A packed projection gets its modules' updates side by side, by one sum; without an adapter the factors have rank 0.
    """
    graph = load_genai(base, workspace, precision=precision)  # type: ignore[arg-type]
    editor, rng = GraphEditor(graph.model), np.random.default_rng(0)
    products: dict[ir.Value, list[tuple[str, ir.Value, int, int]]] = {}
    for name, site in locate(graph, modules).items():
        products.setdefault(site.y, []).append((name, site.x, site.in_features, site.out_features))
    adapter: dict[str, np.ndarray] = {}
    for y, parts in products.items():
        users, deltas = list(y.uses()), []
        for name, x, inner, out in parts:
            a, b = _optional(editor, f"{name}.lora_A", inner, 0), _optional(editor, f"{name}.lora_B", 0, out)
            deltas.append(editor.node("MatMul", [editor.node("MatMul", [x, a])[0], b])[0])
            adapter[f"{name}.lora_A"] = rng.normal(0, 0.01, (inner, rank)).astype(np.float32)
            adapter[f"{name}.lora_B"] = rng.normal(0, 0.01, (rank, out)).astype(np.float32)
        delta = editor.node("Concat", deltas, axis=-1)[0] if len(deltas) > 1 else deltas[0]
        new = editor.node("Add", [y, delta])[0]
        for user, index in users:
            user.replace_input_with(index, new)
    editor.finish()
    clean(graph.model)
    folder = workspace.with_name(f"{workspace.name}_lora")
    folder.mkdir()
    ir.save(graph.model, folder / "model.onnx", external_data="model.onnx.data", size_threshold_bytes=1024)
    for name, path in graph.files.items():
        shutil.copyfile(path, folder / name)
    return folder, _write(adapter, workspace / "adapter.onnx_adapter")


def _optional(editor: GraphEditor, name: str, rows: int, columns: int) -> ir.Value:
    """A graph input of any rank that is empty when nobody gives it."""
    tensor = ir.Tensor(np.zeros((rows, columns), np.float32), name=name)
    shape = ir.Shape([rows or f"{name}.rank", columns or f"{name}.rank"])
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    editor.model.graph.register_initializer(value)
    editor.model.graph.inputs.append(value)
    return value


def _write(adapter: Mapping[str, np.ndarray], path: Path) -> Path:
    file = ort.AdapterFormat()
    file.set_adapter_version(1)
    file.set_model_version(1)
    file.set_parameters({name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in adapter.items()})
    file.export_adapter(str(path))
    return path
