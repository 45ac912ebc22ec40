"""Exports in every precision, of every kind of model."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file, save_file

from eptx.bundle import Bundle
from eptx.calibration import Search, export_bundle
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter import ExportOptions, read_adapter
from eptx.exporter.bases import load_transformers
from eptx.exporter.options import Precision
from eptx.runtime import Session
from eptx.runtime.measure import Source
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_lora
from tests.support.decoders import write_decoder
from tests.support.encoder_decoders import TARGETS, write_encoder_decoder
from tests.support.opens import counted_opens

BASE = Path(__file__).resolve().parents[1] / "golden" / "ept_bert48" / "base"
ROWS = [{"input_ids": [5, 6, 7, 8, index]} for index in range(10, 22)]


@dataclass(frozen=True)
class Made:
    """An EPT adapter on the tiny BERT, which is traced once."""

    base: Path
    adapter: Path
    onnx: Path

    def options(self, precision: Precision | Search, mode: str = "conditioned", **settings: Any) -> ExportOptions:
        task = "task1" if mode == "static" else None
        chosen: dict[str, Any] = {"mode": mode, "task": task, "top_k": 2, "precision": precision}
        return ExportOptions(**chosen, base_onnx=self.onnx, **settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    base = Path(shutil.copytree(BASE, folder / "base"))
    weights, rng = dict(load_file(base / "model.safetensors")), np.random.default_rng(6)
    biases = {name: array for name, array in weights.items() if name.endswith("bias")}  # zeros, which are merged
    weights |= {name: rng.normal(0, 0.1, array.shape).astype(np.float32) for name, array in biases.items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    ir.save(load_transformers(base).model, folder / "base.onnx")
    modules = linear_shapes(base, ("query", "value", "output.dense"))
    return Made(base, write_ept(folder / "ept", modules, seed=4, strength=0.05), folder / "base.onnx")


@pytest.mark.parametrize("mode", ["static", "conditioned", "dynamic"])
def test_an_encoder(made: Made, tmp_path: Path, mode: str) -> None:
    exact = _logits(export_bundle(made.base, [made.adapter], tmp_path / "fp32", made.options("fp32", mode)))
    for precision, most in (("int8", 0.02), ("int8-static", 0.02), ("int4", 0.2)):
        measured = Search(data=[Source(ROWS)], only="int8-static")
        options = made.options(measured if precision == "int8-static" else precision, mode)  # type: ignore[arg-type]
        bundle = export_bundle(made.base, [made.adapter], tmp_path / precision, options)
        assert bundle.manifest.precision == precision
        assert bundle.manifest.quantization is not None
        schemes = set(bundle.manifest.quantization.products.values())
        assert schemes == {"int4-blocks" if precision == "int4" else precision}
        error = np.abs(_logits(bundle) - exact).max() / np.abs(exact).max()
        assert 1e-6 < error < most, precision


def _logits(bundle: Bundle) -> np.ndarray:
    inputs = {"input_ids": [row["input_ids"] for row in ROWS], "attention_mask": [[1] * 5] * len(ROWS)}
    task = "task1" if bundle.manifest.mode != "static" else None
    return np.asarray(Session(bundle).run(inputs, task)["logits"])


@pytest.mark.parametrize("name", ["llama", "llama tied"])
def test_a_decoder_in_8_bits_generates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("eptx.exporter.bases.products.embeddings._MIN_SIZE", 1000)
    base = write_decoder(name, tmp_path / "base")
    adapter = write_ept(tmp_path / "ept", linear_shapes(base, ("q_proj", "o_proj", "down_proj")), seed=1)
    exact = Session(export_bundle(base, [adapter], tmp_path / "fp32", ExportOptions(mode="conditioned", top_k=2)))
    session = Session(
        export_bundle(base, [adapter], tmp_path / "int8", ExportOptions(mode="conditioned", top_k=2, precision="int8"))
    )
    assert session.manifest.generation is not None
    assert session.manifest.quantization is not None
    assert session.manifest.quantization.embeddings == {"/model/embed_tokens/Gather": "int8"}
    floats = [v for v in ir.load(session.bundle.model).graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
    assert all(v.const_value.size != 120 * 64 for v in floats if v.const_value is not None)  # the table is gone
    prompt = {"input_ids": [[5, 9, 11, 40]], "attention_mask": [[1, 1, 1, 1]]}
    logits = [np.asarray(one.run(prompt, "task1")["logits"]) for one in (exact, session)]
    assert np.abs(logits[0] - logits[1]).max() < 0.1 * np.abs(logits[0]).max()
    answer = session.generate([[5, 9, 11, 40]], "task1", max_new_tokens=3)
    assert answer.token_ids[0][0] == logits[1][0, -1].argmax()


def test_an_encoder_decoder_in_8_bits_generates(tmp_path: Path) -> None:
    base = write_encoder_decoder("t5", tmp_path / "base")
    adapter = write_lora(tmp_path / "lora", linear_shapes(base, TARGETS), seed=2)
    options = ExportOptions(mode="conditioned", precision="int8")
    bundle = export_bundle(base, [adapter], tmp_path / "int8", options)
    assert bundle.manifest.quantization is not None
    products = bundle.manifest.quantization.products
    assert any(name.startswith("encoder:") for name in products)  # both graphs are
    assert any(not name.startswith("encoder:") for name in products)
    assert len(Session(bundle).generate([[5, 9, 11, 4]], "task0", max_new_tokens=4).token_ids[0]) > 0


def test_what_a_precision_needs_is_said(made: Made, tmp_path: Path) -> None:
    def export(options: ExportOptions) -> None:
        export_bundle(made.base, [made.adapter], tmp_path / "b", options)

    without: dict[str, Precision | Search] = {"int8-static": "int8-static", "auto": Search(data=[])}
    for name, precision in without.items():
        with pytest.raises(UsageError, match=f"--precision {name} measures on data: give --calibration-data"):
            export(made.options(precision))
    with pytest.raises(NotSupportedError, match="--precision int8 is for CPUs"):
        export(made.options("int8", provider="cuda"))
    with pytest.raises(UsageError, match="measures the routes of HydraLoRA, Lily, MixLoRA and TuckA adapters"):
        export(made.options(Search(data=[Source(ROWS)], only="fp32")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of opened files")
@pytest.mark.parametrize("precision", ["fp32", "int4", Search(data=[Source(ROWS)], only="int8")])
def test_the_adapters_files_are_read_once(made: Made, tmp_path: Path, precision: Precision | Search) -> None:
    with counted_opens(made.adapter) as once:
        read_adapter([made.adapter], top_k=2)
    with counted_opens(made.adapter) as opened:
        export_bundle(made.base, [made.adapter], tmp_path / "b", made.options(precision))
    assert set(once) == {"adapter_config.json", "adapter_model.safetensors"}
    assert opened == once


def test_the_adapter_alone_is_float16(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias that an operator of eptx adds is the base's, and stays as it is."""
    monkeypatch.setattr("eptx.exporter.graph.fp16.store.MIN_SIZE", 2)
    bundle = export_bundle(made.base, [made.adapter], tmp_path / "int8", made.options("int8"))
    graph = ir.load(bundle.model).graph
    read = {value for node in graph if node.domain == "ai.eptx" for value in node.inputs if value is not None}
    halves = {str(value.name) for value in read if value.dtype == ir.DataType.FLOAT16}
    bases = {str(value.name) for value in read if value.is_initializer() and ".lora_" not in str(value.name)}
    biases = {name for name in bases if "query.bias" in name}
    assert biases, sorted(bases)
    assert not biases & halves
    assert any("lora_A" in str(name) for name in halves)
