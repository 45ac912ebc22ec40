"""Lines of the quantizer that are wrong, each seen by one check alone: without that check the bundle passes."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file, save_file

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.calibration.quantize import Range, Scheme, embedding_table, one_product, quantizer
from eptx.exporter import ExportOptions
from eptx.exporter.validation import run as validation
from eptx.exporter.validation.accuracy import activation_ranges as ranges
from eptx.exporter.validation.accuracy.activation_ranges import check_ranges
from eptx.exporter.validation.contents import compare as comparison
from eptx.exporter.validation.quantized import weights
from eptx.runtime.measure import Drop
from eptx.runtime.validation.batch import Batch, rows_alone
from eptx.runtime.validation.quantizing import BudgetedDrop
from eptx.runtime.validation.report.report import Report
from eptx.runtime.validation.running.backends import backends
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept
from tests.exporter.validation.workshop import Workshop
from tests.support.quantized import Choice, quantized

LABELS = {"cola": 2, "mnli": 3}
TABLES = ("word", "position", "token_type")
SCHEMES: tuple[Scheme, ...] = ("int8", "int8-static", "int8-blocks", "int4-blocks", "fp16")


@pytest.fixture(scope="module")
def loud(headless_bert: Workshop) -> Workshop:
    """A base whose layers matter: those of the other change little of what the embeddings give."""
    folder = Path(shutil.copytree(headless_bert.base, headless_bert.path()))
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        for name in tensors:
            if name.endswith((".query.weight", ".key.weight", ".value.weight", ".dense.weight")):
                tensors[name] = tensors[name] * 8
        save_file(tensors, file, metadata={"format": "pt"})
    place = headless_bert.path()
    place.mkdir()
    return Workshop(folder, place, headless=True)


@pytest.fixture(scope="module")
def ept(headless_bert: Workshop) -> Path:
    shapes = linear_shapes(headless_bert.base, ("query", "value", "dense"))
    adapted = {name: shape for name, shape in shapes.items() if "pooler" not in name}
    return add_heads(write_ept(headless_bert.path(), adapted, seed=5), LABELS, 48)


def make(workshop: Workshop, ept: Path, scheme: Choice, mode: str = "conditioned", **more: Any) -> Bundle:
    task: dict[str, Any] = {"task": "mnli"} if mode == "static" else {}
    options = ExportOptions(base_onnx=workshop.onnx, mode=mode, top_k=2, **task)  # type: ignore[arg-type]
    return quantized(workshop.base, [ept], workshop.path(), options, scheme, **more)


def failed_checks(report: Report) -> list[str]:
    return [check.name for check in report.checks if check.wrong]


def no_range(*given: Any) -> list[Any]:
    return []


def no_fault(stored: Any, wanted: np.ndarray, row: str = "") -> None:
    return None


def no_divergence(bundle: Any, reference: Any, batches: Any, tasks: Any, provider: str) -> list[Any]:
    return []


CHECKS = {
    "weights": (weights, "_fault", no_fault),
    "ranges": (validation, "check_ranges", no_range),
    "divergence": (validation, "divergences", no_divergence),
}


def clipped(weight: np.ndarray) -> np.ndarray:
    largest = 0.6 * np.abs(weight).max(0)
    return np.asarray(np.clip(weight, -largest, largest))


def break_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quantizer that cuts weights off, for a finer step."""
    alone = one_product.product_model
    monkeypatch.setattr(one_product, "product_model", lambda weight: alone(clipped(weight)))


def break_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """31 of a table's 255 levels: the largest of a row is 15."""
    monkeypatch.setattr(embedding_table, "_LARGEST", 15.0)


def break_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes rounded down."""
    quantize_rows = embedding_table.quantize_rows

    def floor(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, scales = quantize_rows(table)
        return np.floor(table / scales).astype(np.int8), scales

    monkeypatch.setattr(embedding_table, "quantize_rows", floor)


def break_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range of four tenths of the values."""
    monkeypatch.setattr(quantizer, "_bounds", lambda bounds: (-1.3, 1.3))


def break_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too wide a range for most of the 256 levels to be used."""
    monkeypatch.setattr(quantizer, "_bounds", lambda bounds: (-12.0, 12.0))


def break_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bits by the rule of two bits, where four were meant."""
    monkeypatch.setitem(quantizer._BLOCKS, "int4-blocks", (2, 32))


Break = Callable[[pytest.MonkeyPatch], None]

#: The break, the scheme, the check that sees it, and what it says.
BREAKS: list[tuple[Break, Scheme, str, str]] = [
    (break_weights, "int8", "weights", "its quantized weight: output feature 0: its scale is "),
    (break_weights, "int4-blocks", "weights", "its quantized weight: output feature "),
    (break_levels, "int8", "weights", "its quantized table: row 1: its scale is "),
    (break_floor, "int8", "weights", "its quantized table: row 1, input "),
    (break_narrow, "int8-static", "ranges", "of them are cut off"),
    (break_wide, "int8-static", "ranges", "times too wide"),
    (break_bits, "int4-blocks", "divergence", "quantizing changes "),
]


@pytest.mark.parametrize(("broken", "scheme", "check", "said"), BREAKS)
def test_a_line_of_the_quantizer(
    headless_bert: Workshop,
    loud: Workshop,
    ept: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: Break,
    scheme: Scheme,
    check: str,
    said: str,
) -> None:
    workshop = loud if check == "divergence" else headless_bert
    with monkeypatch.context() as patch:
        broken(patch)
        bundle = make(workshop, ept, scheme)
    # that two bits are no four, the claim of eptx.json shows too
    monkeypatch.setattr(comparison, "compare_files", lambda *given, **named: [])
    report = workshop.validate(bundle)
    assert not report.passed
    assert said in report.reason
    owner, name, blind = CHECKS[check]
    monkeypatch.setattr(owner, name, blind)
    assert workshop.validate(bundle).passed


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_honest_bundles_keep_their_distance(headless_bert: Workshop, ept: Path, mode: str, scheme: Scheme) -> None:
    report = headless_bert.validate(make(headless_bert, ept, scheme, mode))
    assert report.passed, report.reason
    assert max(one.value / one.limit for one in report.divergences) < 0.5
    compared = {check.name for check in report.checks if check.how == "compared"}
    assert "bert.encoder.layer.1.attention.self.query.weight" in compared
    assert "embeddings.word_embeddings.weight" in compared
    assert not failed_checks(report)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_honest_bundles_whose_layers_matter(loud: Workshop, ept: Path, scheme: Scheme) -> None:
    report = loud.validate(make(loud, ept, scheme))
    assert report.passed, report.reason
    assert max(one.value / one.limit for one in report.divergences) < 0.7


@pytest.mark.parametrize(("factor", "said"), [(0.01, "are cut off"), (100.0, "times too wide")])
def test_ranges_off_by_a_hundred(loud: Workshop, ept: Path, factor: float, said: str) -> None:
    """Both of what judges activations see it."""
    bundle = make(loud, ept, "int8-static", bounds=Range(-4.0 * factor, 4.0 * factor))
    report = loud.validate(bundle)
    assert len(failed_checks(report)) > 1
    assert any(said in str(check.wrong) and "layer.1.attention" in check.name for check in report.checks)
    assert not any(one.within for one in report.divergences)


@pytest.mark.parametrize(
    "options",
    [{}, {"per_channel": True, "weight_type": QuantType.QInt8, "reduce_range": True}],
    ids=["default", "rows"],
)
def test_a_base_that_a_user_quantized(headless_bert: Workshop, ept: Path, options: dict[str, Any]) -> None:
    """As ``quantize_dynamic`` does it by itself: products and tables, one scale for each."""
    model = onnx.load(headless_bert.onnx)
    del model.graph.value_info[:]
    base = headless_bert.path().with_suffix(".onnx")
    onnx.save(model, base)
    only_weights = {"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_dynamic(base, base, extra_options=only_weights, **options)
    settings = ExportOptions(base_onnx=base, mode="conditioned", top_k=2)
    report = headless_bert.validate(export_bundle(headless_bert.base, [ept], headless_bert.path(), settings))
    assert report.passed, report.reason
    assert {check.name for check in report.checks} >= {f"embeddings.{kind}_embeddings.weight" for kind in TABLES}


def test_rows_without_a_budget() -> None:
    """Labelled rows have a limit by themselves, held against what is sure; rows without labels have none."""
    sure = Drop("cola", "accuracy", True, 100, 0.76, 0.50, 26.0, 12.0, 40.0)
    assert (BudgetedDrop(sure, None).within, BudgetedDrop(sure, 30.0).within) == (False, True)
    assert BudgetedDrop(replace(sure, low=9.0), None).within is True
    assert BudgetedDrop(replace(sure, labelled=False), None).within is None
    assert "without a budget the interval may begin at 10" in BudgetedDrop(sure, None).sentence


def test_ranges_are_held_against_the_rows_that_the_bundle_names(headless_bert: Workshop, ept: Path) -> None:
    """The ranges must hold the rows of the calibration, and not random ones."""
    bundle = make(headless_bert, ept, "int8-static")
    backend = backends(bundle, ["cpu"])[0]
    arrays = {"input_ids": np.full((1, 12), 7), "attention_mask": np.ones((1, 12), np.int64)}
    arrays["token_type_ids"] = np.zeros_like(arrays["input_ids"])
    own, named = (Batch(name, arrays, ("cola",)) for name in ("own", "named"))
    ran: list[str] = []

    def seen(batch: Batch) -> Any:
        ran.append(batch.name)
        return rows_alone(batch)

    with mock.patch.object(ranges, "rows_alone", seen):
        checks = check_ranges(bundle, [own], backend, lambda: [named])
        check_ranges(bundle, [own], backend)
    assert ran == ["named", "own"]
    assert len(checks) > 4
