"""Bundles whose every companion is compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import eptx
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.bases import load_transformers
from eptx.exporter.validation.contents.files import ExpectedTask
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_lora
from tests.exporter.validation.conftest import GOLDEN
from tests.exporter.validation.contents.files.made import TEMPLATE, Made, write_wordpieces
from tests.support.decoders import write_decoder

LABELS = {"sst2": 2, "mnli": 3}


@pytest.fixture(scope="session")
def bert_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with a tokenizer, the vocabulary as a file of its own too."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("companions") / "base"
    shutil.copytree(GOLDEN / "ept_bert48" / "base", folder)
    write_wordpieces(folder, 200)
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


@pytest.fixture(scope="session")
def bert_onnx(bert_base: Path) -> Path:
    """Its graph, traced once."""
    import onnx_ir as ir

    path = bert_base.parent / "onnx" / "base.onnx"
    path.parent.mkdir()
    ir.save(load_transformers(bert_base, headless=True).model, path)
    return path


@pytest.fixture(scope="session")
def ept(bert_base: Path) -> Path:
    """An adapter with two heads."""
    shapes = linear_shapes(bert_base, ("query", "intermediate.dense", "output.dense"))
    return add_heads(write_ept(bert_base.parent / "ept", shapes, seed=3, tasks=2), LABELS, 48)


@pytest.fixture(scope="session")
def encoder(bert_base: Path, bert_onnx: Path, ept: Path) -> Made:
    """A conditioned EPT bundle of two tasks, and the task base."""
    options = ExportOptions(mode="conditioned", top_k=2, base_onnx=bert_onnx)
    bundle = export_bundle(bert_base, [ept], bert_base.parent / "encoder", options)
    return Made(bundle, bert_base, [ExpectedTask(name, count, None) for name, count in LABELS.items()], "AutoModel")


@pytest.fixture(scope="session")
def quantized(bert_base: Path, bert_onnx: Path, ept: Path) -> Made:
    """The same with products in 8 bits."""
    options = ExportOptions(mode="conditioned", top_k=2, base_onnx=bert_onnx, precision="int8")
    bundle = eptx.export(bert_base, [ept], bert_base.parent / "quantized", options)
    return Made(bundle, bert_base, [ExpectedTask(name, count, None) for name, count in LABELS.items()], "AutoModel")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A Llama that samples, ends turns with two tokens, and has a chat template."""
    folder = tmp_path_factory.mktemp("decoder")
    base = write_decoder("llama", folder / "base", eos_token_id=[2, 5])
    said = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "eos_token_id": [2, 5], "pad_token_id": 0}
    (base / "generation_config.json").write_text(json.dumps(said | {"bos_token_id": 1, "repetition_penalty": 1.0}))
    (base / "chat_template.jinja").write_text(TEMPLATE)
    adapter = write_lora(folder / "lora", linear_shapes(base, ("q_proj", "down_proj")), seed=2)
    bundle = export_bundle(base, [adapter], folder / "bundle", ExportOptions(mode="conditioned", tasks=["chat"]))
    return Made(bundle, base, [ExpectedTask("chat", None, None)], "AutoModelForCausalLM")
