"""Bases that a user has quantized with ONNX Runtime, every product in integers: they pass, or are refused by name.

The graph is one without fused attention, so that what attention multiplies, two activations, is rounded as well.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import transformers
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from safetensors.numpy import load_file, save_file

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import BaseModelError, BundleError, NotSupportedError
from eptx.exporter import ExportOptions
from eptx.exporter.bases.products.integer import integer_product
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.quiet import quiet
from eptx.exporter.validation import Report
from eptx.exporter.validation.quantized import float_activations
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept
from tests.exporter.validation.workshop import Workshop

_VOCABULARY = 200
_MATMUL = {"op_types_to_quantize": ["MatMul"]}


class _Rows(CalibrationDataReader):  # type: ignore[misc]  # not annotated
    """Rows to measure ranges on."""

    def __init__(self) -> None:
        self._rows = _rows()

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)


def _rows() -> Iterator[dict[str, np.ndarray]]:
    """Of all lengths, over the whole vocabulary."""
    rng = np.random.default_rng(0)
    for length in (1, 2, 3, 5, 8, 12, 20, 24) * 4:
        ids = rng.integers(0, _VOCABULARY, (4, length))
        yield {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


@pytest.fixture(scope="module")
def plain(headless_bert: Workshop) -> Path:
    """The base's graph in float32, as torch exports transformers' model with its plainest attention."""
    path = headless_bert.path().with_suffix(".onnx")
    bare: Any = transformers.BertModel
    model = bare.from_pretrained(headless_bert.base, attn_implementation="eager").eval()
    ids = torch.ones(2, 8, dtype=torch.int64)
    given = {"input_ids": ids, "attention_mask": ids.clone(), "token_type_ids": torch.zeros_like(ids)}
    free = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("length", max=32)}
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            kwargs=given,
            f=path,
            output_names=["last_hidden_state", "pooler_output"],
            dynamic_shapes=dict.fromkeys(given, free),
            opset_version=18,
            dynamo=True,
            external_data=False,
        )
    graph = onnx.load(path)
    del graph.graph.value_info[:]
    onnx.save(graph, path)
    feeds = next(_rows())
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        want = model(**{name: torch.from_numpy(array) for name, array in feeds.items()})[0].numpy()
    np.testing.assert_allclose(session.run(None, feeds)[0], want, rtol=0, atol=1e-5)
    return path


@pytest.fixture(scope="module")
def ept(headless_bert: Workshop) -> Path:
    shapes = linear_shapes(headless_bert.base, ("query", "value", "dense"))
    adapted = {name: shape for name, shape in shapes.items() if "pooler" not in name}
    return add_heads(write_ept(headless_bert.path(), adapted, seed=5, strength=0.05), {"cola": 2, "mnli": 3}, 48)


def _dynamic(base: Path, out: Path, **options: Any) -> None:
    extra = {"DefaultTensorType": onnx.TensorProto.FLOAT, **options.pop("extra_options", {})}
    quantize_dynamic(base, out, extra_options=extra, **options)


def _static(base: Path, out: Path, **options: Any) -> None:
    settings = {"quant_format": QuantFormat.QDQ, **options}
    quantize_static(base, out, _Rows(), **settings)


#: quantizer and options -> what `precision` must say.
HONEST: dict[str, tuple[Callable[..., None], dict[str, Any], str]] = {
    "dynamic": (_dynamic, {}, "int8"),
    "dynamic, attention too": (_dynamic, {"extra_options": {"MatMulConstBOnly": False}}, "int8"),
    "static": (_static, _MATMUL, "int8-static"),
    "static by rows": (_static, {**_MATMUL, "per_channel": True, "weight_type": QuantType.QInt8}, "int8-static"),
}


def _quantized(plain: Path, out: Path, name: str) -> Path:
    quantizer, options, _ = HONEST[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantizer(plain, out, **options)
    return out


@pytest.fixture(scope="module")
def bundle_of(headless_bert: Workshop, plain: Path, ept: Path) -> Callable[[str], Bundle]:
    made: dict[str, Bundle] = {}

    def get(name: str) -> Bundle:
        if name not in made:
            base = _quantized(plain, plain.with_name(f"{name}.onnx"), name)
            settings = ExportOptions(base_onnx=base, mode="conditioned", top_k=2)
            made[name] = export_bundle(headless_bert.base, [ept], headless_bert.path(), settings)
        return made[name]

    return get


def _held_to(shop: Workshop, plain: Path, ept: Path, bundle: Bundle, name: str) -> Report:
    return shop.validate(bundle, ept, base=shop.base, base_onnx=plain.with_name(f"{name}.onnx"))


@pytest.mark.parametrize("name", HONEST)
def test_honest(headless_bert: Workshop, bundle_of: Callable[[str], Bundle], name: str) -> None:
    bundle = bundle_of(name)
    assert bundle.manifest.precision == HONEST[name][2]
    report = headless_bert.validate(bundle)
    assert report.passed, report.reason


@pytest.mark.parametrize("name", ["dynamic, attention too", "static"])
def test_without_what_undoes_it(
    headless_bert: Workshop, bundle_of: Callable[[str], Bundle], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding of what attention multiplies would be held against the adapter."""
    monkeypatch.setattr(float_activations, "_float_activations_product", lambda *given: False)
    monkeypatch.setattr(float_activations, "_undo_rounding", lambda *given: False)
    assert not headless_bert.validate(bundle_of(name)).passed


@pytest.mark.parametrize("name", ["dynamic, attention too", "static"])
def test_a_wrong_factor_is_seen(
    headless_bert: Workshop, bundle_of: Callable[[str], Bundle], ept: Path, name: str
) -> None:
    """One module of the trained adapter is 1.01 times what the bundle has."""
    other = Path(shutil.copytree(ept, headless_bert.path()))
    tensors = load_file(other / "adapter_model.safetensors")
    key = next(key for key in tensors if "layer.0.attention.self.value.lora_B" in key)
    tensors[key] = tensors[key] * np.float32(1.01)
    save_file(tensors, other / "adapter_model.safetensors")
    report = headless_bert.validate(bundle_of(name), other)
    assert not report.passed
    assert "layer.0.attention.self.value" in str(report.reason)


@pytest.mark.parametrize("name", ["dynamic, attention too", "static"])
def test_a_wrong_scale_is_seen(
    headless_bert: Workshop, plain: Path, ept: Path, bundle_of: Callable[[str], Bundle], name: str
) -> None:
    def scaled(graph: ir.Graph) -> None:
        _scale(graph, _weight_scale(graph, (96, 48)), 1.02)

    wrong = headless_bert.edited(bundle_of(name), scaled)
    try:
        assert not _held_to(headless_bert, plain, ept, wrong, name).passed
    except BundleError as error:  # it is no layer's weight any more
        assert "cannot tell whose quantized weight this is" in str(error)


def _weight_scale(graph: ir.Graph, shape: tuple[int, int]) -> str:
    """The name of the scale of the first weight of a shape."""
    for product in find_products(graph):
        if product.shape != shape:
            continue
        integers = integer_product(product.node)
        if integers is not None:
            return str(next(v.name for v in integers.scales.inputs if v is not None and v.is_initializer()))
        if product.coarse is not None:
            return str(product.coarse.inputs[1].name)  # type: ignore[union-attr]
    raise AssertionError("no such product")


def _scale(graph: ir.Graph, name: str, factor: float) -> None:
    value = graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.Tensor(value.const_value.numpy() * np.float32(factor), name=name)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_a_wrong_range_of_attention_is_seen(
    headless_bert: Workshop, plain: Path, ept: Path, bundle_of: Callable[[str], Bundle], factor: float
) -> None:
    """The proof looks past rounding; the rounding of the file as it is shipped still has a limit."""

    def scaled(graph: ir.Graph) -> None:
        for name in [name for name in graph.initializers if name.startswith("softmax") and name.endswith("_scale")]:
            _scale(graph, name, factor)

    report = _held_to(headless_bert, plain, ept, headless_bert.edited(bundle_of("static"), scaled), "static")
    assert not report.passed
    assert any("softmax" in check.name and check.wrong for check in report.checks)


def test_more_than_products(headless_bert: Workshop, plain: Path, ept: Path) -> None:
    """By default the static quantizer stores biases and norms as integers, too; nobody says how far off."""
    base = headless_bert.path().with_suffix(".onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _static(plain, base)
    settings = ExportOptions(base_onnx=base, mode="conditioned", top_k=2)
    out = headless_bert.path()
    with pytest.raises(NotSupportedError, match=r"is quantized, and is no product's weight; quantize products alone"):
        export_bundle(headless_bert.base, [ept], out, settings)
    assert not out.exists()


def test_operators_on_integers(headless_bert: Workshop, plain: Path, ept: Path) -> None:
    base = headless_bert.path().with_suffix(".onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _static(plain, base, quant_format=QuantFormat.QOperator, **_MATMUL)
    settings = ExportOptions(base_onnx=base, mode="conditioned", top_k=2)
    with pytest.raises(BaseModelError, match="which is quantized \\(QLinearMatMul\\); give it unquantized"):
        export_bundle(headless_bert.base, [ept], headless_bert.path(), settings)
