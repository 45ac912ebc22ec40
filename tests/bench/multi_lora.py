"""What is usual for LoRA in ONNX, to compare with: two MatMuls and an Add per module, one adapter for the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases import load_transformers, locate
from eptx.exporter.bundle.clean import clean
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.methods.read import read_adapter
from tests.support.minilm import EPT

RANK = 16


def write_multi_lora(base: Path, path: Path) -> Path:
    """Writes the base with a LoRA of rank 16 at every module that the demo's EPT adapter adapts."""
    graph = load_transformers(base, headless=True)
    editor, rng = GraphEditor(graph.model), np.random.default_rng(0)
    modules = read_adapter([EPT], top_k=None, tasks=None).module_names
    for name, site in locate(graph, modules).items():
        a = editor.constant(f"{name}.a", rng.normal(0, 0.01, (site.in_features, RANK)))
        b = editor.constant(f"{name}.b", rng.normal(0, 0.01, (RANK, site.out_features)))
        y, users = site.y, list(site.y.uses())
        delta = editor.node("MatMul", [editor.node("MatMul", [site.x, a])[0], b])[0]
        new = editor.node("Add", [y, delta])[0]
        for user, index in users:
            user.replace_input_with(index, new)
    editor.finish()
    clean(graph.model)
    ir.save(graph.model, path, external_data=f"{path.name}.data")
    return path
