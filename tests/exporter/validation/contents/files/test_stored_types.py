"""The precision that is claimed is how weights are stored, product by product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from tests.exporter.validation.contents.files.made import Change, Made, damaged, edit, put
from tests.support.quantized import quantized

SCHEMES = ["fp32", "fp16", "int8", "int8-static", "int8-blocks", "int4-blocks"]
PRECISION, PRODUCTS, TABLES = (
    "eptx.json: precision",
    "eptx.json: quantization.products",
    "eptx.json: quantization.embeddings",
)
QUERY = "bert.encoder.layer.0.attention.self.key.weight"


@pytest.fixture(scope="module")
def half(bert_base: Path, bert_onnx: Path, ept: Path, encoder: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """As float16, with routers."""
    options = ExportOptions(mode="dynamic", top_k=2, base_onnx=bert_onnx, precision="fp16")
    bundle = export_bundle(bert_base, [ept], tmp_path_factory.mktemp("half") / "b", options)
    return Made(bundle, bert_base, encoder.tasks, "AutoModel")


@pytest.fixture(scope="module")
def mixed(bert_base: Path, bert_onnx: Path, ept: Path, encoder: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Every scheme in turn."""
    options = ExportOptions(mode="conditioned", top_k=2, base_onnx=bert_onnx)
    out = tmp_path_factory.mktemp("mixed") / "b"
    bundle = quantized(bert_base, [ept], out, options, lambda index: SCHEMES[index % 6])  # type: ignore[return-value]
    return Made(bundle, bert_base, encoder.tasks, "AutoModel")


def _store(name_end: str, dtype: Any, *, turned: bool = True) -> Change:
    """Stores a weight in another type, and casts it back unless its reader takes it as it is."""

    def change(folder: Path) -> None:
        path = (folder / "model.onnx").absolute()
        model = ir.load(path)
        ir.external_data.load_to_model(model)
        value = next(v for n, v in model.graph.initializers.items() if n.endswith(name_end))
        assert value.const_value is not None
        array = value.const_value.numpy().astype(dtype)
        stored = ir.Value(name=f"{value.name}.stored", const_value=ir.Tensor(array))
        stored.dtype, stored.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)})
        cast.outputs[0].name, cast.outputs[0].dtype = f"{value.name}.cast", ir.DataType.FLOAT
        model.graph.register_initializer(stored)
        value.replace_all_uses_with(cast.outputs[0] if turned else stored)
        if turned:
            model.graph.insert_before(model.graph[0], cast)
        del model.graph.initializers[value.name]
        ir.save(model, path, external_data="model.onnx.data", size_threshold_bytes=16384)

    return change


def test_honest_bundles(half: Made, quantized: Made, mixed: Made) -> None:
    for made in (half, quantized, mixed):
        assert [check for check in made.checks() if check.wrong or check.how != "compared"] == []


@pytest.mark.parametrize("dtype", [np.float16, np.int8], ids=["float16", "int8"])
def test_fp32_with_a_narrower_weight(encoder: Made, tmp_path: Path, dtype: Any) -> None:
    wrong = encoder.wrong(damaged(encoder.bundle, tmp_path / "b", _store("layer.0.attention.self.key.weight", dtype)))
    assert list(wrong) == [PRECISION]
    assert "says fp32; " in wrong[PRECISION] and np.dtype(dtype).name in wrong[PRECISION]


@pytest.mark.parametrize("name", ["self.key.weight.fp16", "lora_expert_kernels.fp16", "word_embeddings.weight.fp16"])
def test_fp16_with_a_wider_weight(half: Made, tmp_path: Path, name: str) -> None:
    wrong = half.wrong(damaged(half.bundle, tmp_path / "b", _store(name, np.float32)))
    assert list(wrong) == [PRECISION] and "says fp16; " in wrong[PRECISION]


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("fp32", "quantization is not empty"),
        ("fp16", "quantization is not empty"),
        ("int8-static", "quantization names int8"),
        ("int4", "quantization names int8"),
    ],
)
def test_another_claim(quantized: Made, tmp_path: Path, claim: str, said: str) -> None:
    wrong = quantized.wrong(damaged(quantized.bundle, tmp_path / "b", put("eptx.json", "precision", claim)))
    assert list(wrong) == [PRECISION] and said in wrong[PRECISION]


@pytest.mark.parametrize("claim", ["fp16", "int8", "int4", "mixed"])
def test_a_claim_of_a_float32_bundle(encoder: Made, tmp_path: Path, claim: str) -> None:
    assert list(encoder.wrong(damaged(encoder.bundle, tmp_path / "b", put("eptx.json", "precision", claim)))) == [
        PRECISION
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("said", SCHEMES)
def test_a_product_that_is_not_what_is_said(mixed: Made, tmp_path: Path, scheme: str, said: str) -> None:
    assert mixed.bundle.manifest.quantization is not None
    name = next(n for n, s in mixed.bundle.manifest.quantization.products.items() if s == scheme)
    change = edit("eptx.json", lambda manifest: manifest["quantization"]["products"].update({name: said}))
    wrong = mixed.wrong(damaged(mixed.bundle, tmp_path / "b", change))
    assert wrong == ({} if said == scheme else {PRODUCTS: f"says that {name} is {said}; it is {scheme}"})


def test_a_product_that_is_not_named(mixed: Made, tmp_path: Path) -> None:
    assert mixed.bundle.manifest.quantization is not None
    name = next(n for n, s in mixed.bundle.manifest.quantization.products.items() if s == "int4-blocks")
    change = edit("eptx.json", lambda manifest: manifest["quantization"]["products"].pop(name))
    wrong = mixed.wrong(damaged(mixed.bundle, tmp_path / "b", change))
    assert wrong == {PRODUCTS: f"does not name {name}, which is int4-blocks"}


def test_a_table_that_is_not_what_is_said(mixed: Made, tmp_path: Path) -> None:
    assert mixed.bundle.manifest.quantization is not None
    name = next(iter(mixed.bundle.manifest.quantization.embeddings))
    change = edit("eptx.json", lambda manifest: manifest["quantization"]["embeddings"].update({name: "fp16"}))
    wrong = mixed.wrong(damaged(mixed.bundle, tmp_path / "b", change))
    assert wrong == {TABLES: f"says that {name} is fp16; it is int8"}


def test_an_adapter_in_float32_beside_quantized_products(quantized: Made, tmp_path: Path) -> None:
    change = _store("intermediate.dense.lora_B.fp16", np.float32, turned=False)
    wrong = quantized.wrong(damaged(quantized.bundle, tmp_path / "b", change))
    assert list(wrong) == [PRECISION] and "lora_B" in wrong[PRECISION]
