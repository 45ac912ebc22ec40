"""What a quantized bundle loses as it is shipped, against its fp32 baseline and its budget."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx import Session
from eptx.bundle import Bundle
from eptx.bundle.origin import read_origin, write_origin
from eptx.calibration.quantize import Range
from eptx.errors import DataError, UsageError
from eptx.exporter import ExportOptions, Route
from eptx.exporter.validation import run as validation
from eptx.exporter.validation.accuracy.fp32_baseline import export_fp32_baseline
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.reference.files import find_reference, with_origin
from eptx.runtime.measure.budget import budgets
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_lora, write_tucka
from tests.exporter.validation.conftest import Cli
from tests.exporter.validation.workshop import Workshop
from tests.support.quantized import quantized

LABELS = {"cola": 2, "mnli": 3, "stsb": 1}
CONDITIONED: dict[str, Any] = {"mode": "conditioned", "top_k": 2}
#: Much less than what the products read: every activation is cut off.
NARROW = Range(-0.02, 0.02)
ROWS = 40
QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.fixture(scope="module")
def ept(headless_bert: Workshop) -> Path:
    shapes = linear_shapes(headless_bert.base, ("query", "value", "dense"))
    adapted = {name: shape for name, shape in shapes.items() if "pooler" not in name}
    return add_heads(write_ept(headless_bert.path(), adapted, seed=5, strength=0.5), LABELS, 48, pooling="pooler")


@pytest.fixture(scope="module")
def fp32(headless_bert: Workshop, ept: Path) -> Bundle:
    return headless_bert.export(ept, **CONDITIONED)


@pytest.fixture(scope="module")
def data(headless_bert: Workshop, fp32: Bundle) -> Path:
    """Rows of every task; cola's labels are what fp32 answers, but for every fifth."""
    ids = np.random.default_rng(0).integers(3, 190, (ROWS, 8))
    answers = Session(fp32).run({"input_ids": ids, "attention_mask": np.ones_like(ids)}, ["cola"] * ROWS)
    right = np.asarray(answers["logits"])[:, :2].argmax(1)
    rows = [{"task": task, "input_ids": row.tolist()} for task in ("mnli", "stsb") for row in ids]
    labelled = [
        {"task": "cola", "input_ids": row.tolist(), "label": int(label) ^ (i % 5 == 0)}
        for i, (row, label) in enumerate(zip(ids, right, strict=True))
    ]
    file = headless_bert.path().with_suffix(".jsonl")
    file.write_text("\n".join(json.dumps(row) for row in rows + labelled))
    return file


def make(workshop: Workshop, ept: Path, scheme: Any = "int8", **more: Any) -> Bundle:
    options = ExportOptions(base_onnx=workshop.onnx, **CONDITIONED)
    return quantized(workshop.base, [ept], workshop.path(), options, scheme, **more)


def test_a_bundle_within_its_budget(headless_bert: Workshop, ept: Path, data: Path, cli: Cli) -> None:
    budget = {"cola": 60.0, "mnli": 60.0}
    bundle = make(headless_bert, ept, budget=budget, data=(str(data),), rows=30, metrics={"cola": "matthews"})
    code, out, err = cli("validate", "-q", bundle.path, "--provider", "cpu", "--json")
    assert (code, err) == (0, "")
    drops = {drop["task"]: drop for drop in json.loads(out)["drops"]}
    assert list(drops) == list(LABELS)
    assert [drops["cola"][key] for key in ("metric", "labelled", "rows", "budget", "within")] == [
        "matthews",
        True,
        30,
        60.0,
        True,
    ]
    assert (drops["mnli"]["labelled"], drops["mnli"]["reference"]) == (False, 1.0)
    assert (drops["stsb"]["budget"], drops["stsb"]["within"]) == (None, None)
    code, out, _ = cli("inspect", bundle.path, "--json")
    assert json.loads(out)["quantization"] | {"data": None, "metrics": None} == {
        "products": {"int8": 13},
        "embeddings": {"int8": 2},
        "budget": budget,
        "metrics": None,
        "data": None,
        "rows": 30,
    }
    card = (bundle.path / "README.md").read_text()
    assert "- 13 products: 8 bits, a scale for each output feature" in card
    assert "cola 60 of matthews, mnli 60" in card


def test_what_is_shipped_is_what_is_measured(
    headless_bert: Workshop, ept: Path, data: Path, fp32: Bundle, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are right, so the proof passes; its activations are not, and nobody looks at their ranges."""
    monkeypatch.setattr(validation, "check_ranges", lambda *_: [])
    bundle = make(headless_bert, ept, "int8-static", bounds=NARROW, data=(str(data),), budget={"cola": 0.5})
    code, out, err = cli("validate", "-q", bundle.path, "--provider", "cpu", "--against", fp32.path)
    assert code == 4, out
    assert "passed; worst" in out
    assert "error: cola: accuracy fell " in err
    assert "from 0.800 to " in err
    assert "; the budget is 0.5" in err
    page = (bundle.path / "report.html").read_text()
    assert "What quantizing loses" in page
    assert "accuracy with fp32" in page
    code, _, err = cli("validate", "-q", bundle.path, "--provider", "cpu", "--against", fp32.path, "--max-drop", "100")
    assert (code, err) == (0, "")


def test_rows_that_are_gone(headless_bert: Workshop, ept: Path, cli: Cli) -> None:
    bundle = make(headless_bert, ept, data=("cola=nowhere/cola.jsonl",), budget={"cola": 0.5})
    code, _, err = cli("validate", "-q", bundle.path, "--provider", "cpu")
    assert code == 0
    assert err.strip() == (
        f"warning: what quantizing loses was measured on random inputs: {Path.cwd()}/nowhere/cola.jsonl "
        "is not there any more; --data FILE gives it in points"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--max-drop", "nan"], 3, "--max-drop: nan is not a number of points, 0 or more"),
        (["--max-drop", "cola=-1"], 3, "--max-drop of cola: -1.0 is not a number of points, 0 or more"),
        (["--max-drop", "inf"], 3, "--max-drop: inf is not a number of points, 0 or more"),
        (["--max-drop", "all"], 3, "--max-drop must be a number of points, 0 or more, not 'all'"),
    ],
)
def test_budgets_that_are_none(fp32: Bundle, cli: Cli, arguments: list[str], code: int, said: str) -> None:
    assert cli("validate", fp32.path, *arguments) == (code, "", f"error: {said}\n")


def test_what_does_not_fit(headless_bert: Workshop, ept: Path, fp32: Bundle, data: Path) -> None:
    bundle = make(headless_bert, ept)
    with pytest.raises(UsageError, match="give --data"):
        headless_bert.validate(bundle, max_drop={None: 1.0})
    with pytest.raises(UsageError, match="--max-drop and --against are for quantized bundles; this one is fp32"):
        headless_bert.validate(fp32, max_drop={None: 1.0})
    with pytest.raises(UsageError, match="is int8; what is lost is measured from fp32"):
        headless_bert.validate(_with_data(bundle, data), against=bundle.path)
    with pytest.raises(UsageError, match="is of another adapter than the bundle"):
        other = add_heads(write_ept(headless_bert.path(), {QUERY: (48, 48)}, seed=1), LABELS, 48)
        headless_bert.validate(bundle, against=headless_bert.export(other, **CONDITIONED).path)
    with pytest.raises(DataError, match="--max-drop names an unknown task 'rte'; there are cola, mnli, stsb"):
        budgets({}, {"rte": 1.0}, list(LABELS))
    assert budgets({"cola": 3.0, "mnli": 1.0}, {"cola": 2.0}, list(LABELS)) == {"cola": 2.0, "mnli": 1.0}
    assert budgets({"cola": 3.0}, {None: 1.0, "stsb": 2.0}, list(LABELS)) == {"cola": 1.0, "mnli": 1.0, "stsb": 2.0}


def _with_data(bundle: Bundle, data: Path) -> Bundle:
    write_origin(bundle, replace(read_origin(bundle), data=(str(data),)))
    return bundle


@pytest.mark.parametrize("method", ["ept", "tucka", "lora"])
def test_the_twin_is_what_an_fp32_export_gives(headless_bert: Workshop, ept: Path, tmp_path: Path, method: str) -> None:
    """To the last byte."""
    shapes = linear_shapes(headless_bert.base, ("query",))
    routes = {"x": Route(0, (0.6, 0.4)), "y": Route(2, (0.3, 0.7))}
    cases: dict[str, tuple[list[Path], dict[str, Any]]] = {
        "ept": ([ept], {"mode": "static", "task": "mnli", "top_k": 2}),
        "tucka": (
            [write_tucka(headless_bert.path(), shapes, seed=1, tasks=("x", "y"))],
            {"mode": "conditioned", "routes": routes},
        ),
        "lora": ([write_lora(headless_bert.path(), shapes, seed=1)], {"mode": "static"}),
    }
    adapters, options = cases[method]
    settings = ExportOptions(base_onnx=headless_bert.onnx, **options)
    bundle = quantized(headless_bert.base, adapters, headless_bert.path(), settings, "int8")
    wanted = headless_bert.export(adapters, **options)
    asked, _ = with_origin(bundle, ValidateOptions())
    baseline = export_fp32_baseline(bundle.manifest, find_reference(bundle.manifest, asked), asked, tmp_path)
    assert baseline.manifest.files == wanted.manifest.files
