"""Quantized bundles: honest ones pass whatever each weight is stored as, and each way to be wrong is found."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.calibration.quantize import Quantizer, Recipe, Scheme
from eptx.errors import BundleError, NotSupportedError
from eptx.exporter import ExportOptions, Route
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.validation.quantized import weights as quantized_weights
from eptx.exporter.validation.quantized.stored import read_product
from eptx.exporter.validation.quantized.weight_matching import linears_of, places_of
from eptx.runtime.validation.distance import LIMIT
from tests.exporter.bases.graphs import activation, initializer, model
from tests.exporter.validation.adapters import (
    Shapes,
    Tensors,
    add_heads,
    changed,
    linear_shapes,
    set_config,
    swap_tasks,
    write_ept,
    write_tucka,
)
from tests.exporter.validation.workshop import Workshop, failed_tasks, task, worst
from tests.support.encoder_decoders import TARGETS, KeptGraphs, write_encoder_decoder
from tests.support.quantized import Choice, quantized
from tests.support.trained import trained_model

LABELS = {"cola": 2, "mnli": 3, "stsb": 1}
SCHEMES: tuple[Scheme, ...] = ("int8", "int8-static", "int8-blocks", "int4-blocks", "fp16", "fp32")
EPT: dict[str, Any] = {"mode": "conditioned", "top_k": 2}
ROUTES = {"x": Route(0, (0.6, 0.4)), "y": Route(2, (0.3, 0.7))}
MODULE = "bert.encoder.layer.1.attention.self.query"
PRODUCT = "/encoder.layer.1.attention.self.query/MatMul"


def mixed(index: int) -> Scheme:
    return SCHEMES[index % len(SCHEMES)]


def mostly(scheme: Scheme) -> Choice:
    """All but the first product."""

    def choose(index: int) -> Scheme:
        return scheme if index else "fp16"

    return choose


@pytest.fixture(scope="module")
def shapes(headless_bert: Workshop) -> Shapes:
    found = linear_shapes(headless_bert.base, ("query", "key", "value", "dense"))
    return {name: shape for name, shape in found.items() if "pooler" not in name}


@pytest.fixture(scope="module")
def ept(headless_bert: Workshop, shapes: Shapes) -> Path:
    return add_heads(write_ept(headless_bert.path(), shapes, seed=5), LABELS, 48)


def make(
    workshop: Workshop, adapters: Path | list[Path], scheme: Choice, *, traced: bool = True, **options: Any
) -> Bundle:
    folders = adapters if isinstance(adapters, list) else [adapters]
    graph = workshop.onnx if traced else None
    return quantized(workshop.base, folders, workshop.path(), ExportOptions(base_onnx=graph, **options), scheme)


@pytest.fixture(scope="module")
def honest(headless_bert: Workshop, ept: Path) -> Bundle:
    return make(headless_bert, ept, "int8", **EPT)


@pytest.mark.parametrize("scheme", [*SCHEMES[:4], mixed])
@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_an_honest_encoder(headless_bert: Workshop, ept: Path, mode: str, scheme: Choice) -> None:
    bundle = make(headless_bert, ept, scheme, mode=mode, top_k=2, task="mnli" if mode == "static" else None)
    assert bundle.manifest.quantization is not None and bundle.manifest.quantization.embeddings
    report = headless_bert.validate(bundle)
    assert report.passed, report.reason
    assert worst(report) < LIMIT / 2


@pytest.mark.parametrize("options", [{"mode": "conditioned", "routes": ROUTES}, {"mode": "dynamic", "routing": "row"}])
def test_an_update_that_was_made_of_the_weight_before(
    headless_bert: Workshop, shapes: Shapes, options: dict[str, Any]
) -> None:
    tucka = write_headless_tucka(headless_bert, shapes)
    report = headless_bert.validate(make(headless_bert, tucka, "int8", **options))
    assert report.passed, report.reason
    assert worst(report) < LIMIT / 2


def write_headless_tucka(workshop: Workshop, shapes: Shapes) -> Path:
    """TuckA that was trained on the model without a head, as PEFT notes it down."""
    tucka = write_tucka(workshop.path(), shapes, seed=6, tasks=("x", "y"))
    noted = {"base_model_class": "BertModel", "parent_library": "transformers.models.bert.modeling_bert"}
    return set_config(tucka, workshop.path(), auto_mapping=noted)


def edit(value: ir.Value, change: Callable[[np.ndarray], None]) -> None:
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    change(array)
    value.const_value = ir.Tensor(array, name=value.name)


def turn_a_column(array: np.ndarray) -> None:
    array[:, 3] = np.roll(array[:, 3], 1)


def turn_a_row(array: np.ndarray) -> None:
    array[3] = np.roll(array[3], 1)


def scale_up(array: np.ndarray) -> None:
    array *= np.float32(1.01)


def zero(array: np.ndarray) -> None:
    array[:] = 0


#: What is changed, how, where it is found, and what is said.
DAMAGES = [
    (f"{PRODUCT}.weight_quantized", turn_a_column, MODULE, "output feature 3, input "),
    (f"{PRODUCT}.weight_scale", scale_up, MODULE, "output feature 0: its scale is "),
    ("node_embedding.int8", turn_a_row, "embeddings.word_embeddings", "its quantized table: row 3, input "),
    (f"{MODULE}.lora_B", zero, MODULE, "times the noise floor"),
]


@pytest.mark.parametrize(("name", "change", "where", "words"), DAMAGES)
def test_a_damaged_bundle(
    headless_bert: Workshop, honest: Bundle, name: str, change: Callable[[np.ndarray], None], where: str, words: str
) -> None:
    damaged = headless_bert.edited(honest, lambda graph: edit(graph.initializers[name], change))
    report = headless_bert.validate(damaged)
    assert failed_tasks(report) >= set(LABELS)
    assert (task(report, "cola").failed_at, words in str(task(report, "cola").reason)) == (where, True)


@pytest.mark.parametrize("scheme", ["int8", "int8-static", "int4-blocks"])
def test_two_tasks_swapped_in_one_module(headless_bert: Workshop, ept: Path, scheme: Scheme) -> None:
    mutant = changed(ept, headless_bert.path(), swap_tasks(MODULE, 0, 2))
    report = headless_bert.validate(make(headless_bert, mutant, scheme, **EPT), ept, top_k=2)
    assert failed_tasks(report) == {"cola", "stsb"}
    assert task(report, "cola").failed_at == task(report, "stsb").failed_at == MODULE


def drop_lora(tensors: Tensors) -> None:
    tensors[f"base_model.model.{MODULE}.lora_B.weight"] *= 0


def test_a_static_bundle_without_a_modules_update(
    headless_bert: Workshop, shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an update smaller than a step few codes tell; without them all weights together do; float32 is as it is."""
    original = add_heads(write_ept(headless_bert.path(), shapes, seed=8, strength=0.01), LABELS, 48)
    mutant = changed(original, headless_bert.path(), drop_lora)
    cases: list[tuple[Scheme, str]] = [
        ("int4-blocks", "its quantized weight: output feature "),
        ("fp32", "times the noise floor"),
    ]
    for scheme, words in cases:
        bundle = make(headless_bert, mutant, mostly(scheme), mode="static", top_k=2, task="mnli")
        report = headless_bert.validate(bundle, original)
        assert task(report, "mnli").failed_at == MODULE
        assert words in str(task(report, "mnli").reason)
    monkeypatch.setattr(quantized_weights, "_fault", lambda *_: None)
    report = headless_bert.validate(
        make(headless_bert, mutant, "int4-blocks", mode="static", top_k=2, task="mnli"), original
    )
    assert "times the task's update" in str(task(report, "mnli").reason)


def test_a_bundle_that_names_what_is_not_there(headless_bert: Workshop, honest: Bundle) -> None:
    def rename(graph: ir.Graph) -> None:
        next(node for node in graph if node.name == PRODUCT).name = "/elsewhere/MatMul"

    with pytest.raises(BundleError, match=f"{PRODUCT} is said to be quantized"):
        headless_bert.validate(headless_bert.edited(honest, rename))


def quantize_whole(graph: Path, out: Path) -> Path:
    """A base's graph as a user would have ONNX Runtime quantize it: one scale and zero point for every weight."""
    model = onnx.load(graph)
    del model.graph.value_info[:]
    onnx.save(model, out)
    options = {"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_dynamic(out, out, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul"], extra_options=options)
    return out


def test_a_base_that_is_quantized_already(headless_bert: Workshop, shapes: Shapes, ept: Path) -> None:
    """Query, key and value read one DynamicQuantizeLinear."""
    base = quantize_whole(headless_bert.onnx, headless_bert.path().with_suffix(".onnx"))
    tucka = write_headless_tucka(headless_bert, shapes)
    cases: list[tuple[Path, dict[str, Any]]] = [(ept, EPT), (tucka, {"mode": "conditioned", "routes": ROUTES})]
    for adapter, options in cases:
        bundle = export_bundle(
            headless_bert.base, [adapter], headless_bert.path(), ExportOptions(base_onnx=base, **options)
        )
        assert bundle.manifest.precision == "int8"
        report = headless_bert.validate(bundle)
        assert report.passed, report.reason
        assert worst(report) < LIMIT / 2
    with pytest.raises(NotSupportedError, match="is quantized in the base graph"):
        static = ExportOptions(base_onnx=base, mode="static", task="cola", top_k=2)
        export_bundle(headless_bert.base, [ept], headless_bert.path(), static)


def test_a_packed_product_is_several_layers(headless_bert: Workshop, ept: Path) -> None:
    """Whose node has a name of its own; a weight that is nobody's is an error."""
    reference = trained_model(headless_bert.base, [ept], top_k=2).hosts[0]
    linears = linears_of(reference.model)
    layers = [f"encoder.layer.1.attention.self.{x}" for x in ("query", "key", "value")]
    packed = np.concatenate([linears[name].weight.detach().numpy() for name in layers])
    for weight, found in ((packed, layers), (packed[:-1], None), (packed[::-1], None)):
        product = ir.node(
            "MatMul", [activation("x", 48), initializer("w", weight.T.astype(np.float32))], name="/p/MatMul"
        )
        graph = model([product.inputs[0]], [product]).graph  # type: ignore[list-item]
        Quantizer()(graph, Recipe({"/p/MatMul": "int8"}))
        stored = read_product(find_products(graph)[-1])
        if found is None:
            with pytest.raises(BundleError, match="eptx cannot tell whose quantized weight this is"):
                places_of(stored, reference, None)
        else:
            places = places_of(stored, reference, None)
            assert [place.linear for place in places] == found
            assert [(place.rows.start, place.rows.stop) for place in places] == [(0, 48), (48, 96), (96, 144)]


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("t5")
    return Workshop(write_encoder_decoder("t5", folder / "base"), folder)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptGraphs:
    return KeptGraphs(tmp_path_factory.mktemp("kept"))


@pytest.mark.parametrize(("mode", "scheme"), [("static", mixed), ("conditioned", "int8")])
def test_an_honest_encoder_decoder(
    t5: Workshop, kept: KeptGraphs, monkeypatch: pytest.MonkeyPatch, mode: str, scheme: Choice
) -> None:
    monkeypatch.setattr("eptx.exporter.steps.load.load_encoder_decoder", kept)
    adapter = write_ept(t5.path(), linear_shapes(t5.base, TARGETS), seed=1, tasks=3, sizes=(2, 3, 3, 5), strength=0.2)
    chosen = {"task": "task1"} if mode == "static" else {}
    report = t5.validate(make(t5, adapter, scheme, traced=False, mode=mode, top_k=2, **chosen))
    assert report.passed, report.reason
    assert worst(report) < LIMIT / 2
    assert all(found.rounded is not None for found in report.providers[0].tasks)


@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_an_honest_decoder(llama: Workshop, mode: str) -> None:
    adapter = write_ept(llama.path(), linear_shapes(llama.base, ("q_proj", "v_proj", "down_proj")), seed=3, tasks=2)
    chosen = {"task": "task1"} if mode == "static" else {}
    report = llama.validate(make(llama, adapter, "int8", traced=False, mode=mode, top_k=2, **chosen))
    assert report.passed, report.reason
    assert worst(report) < LIMIT / 2
