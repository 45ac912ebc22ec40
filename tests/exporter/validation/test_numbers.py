"""A report is written whatever the numbers are, and the command tells what is wrong in one line."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file, save_file

from eptx.bundle import Bundle
from eptx.exporter.validation import Report, report_text
from eptx.files.strict_json import dump_json
from eptx.runtime.measure import Drop
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.check import Check
from eptx.runtime.validation.comparison.answers import Disagreement, GreedyAgreement, Metric
from eptx.runtime.validation.comparison.results import BackendReport, Measured, RoundedActivations, TaskReport
from eptx.runtime.validation.expectation import LiveRoute
from eptx.runtime.validation.quantizing import BudgetedDrop
from eptx.runtime.validation.report.json_types import json_types
from eptx.runtime.validation.report.page import report_html
from eptx.runtime.validation.timings import StageTimes
from tests.exporter.validation.adapters import linear_shapes, write_ept
from tests.exporter.validation.conftest import Cli
from tests.exporter.validation.workshop import Workshop
from tests.support.tiny_bundle import tiny_manifest

BAD = [math.nan, math.inf, -math.inf, 1e38, np.float32(np.nan), np.float64(np.inf), np.float16(65504), np.float32(1e38)]
VALUE = "bert.encoder.layer.1.attention.self.value"


@pytest.fixture(scope="module")
def adapter(bert: Workshop) -> Path:
    return write_ept(bert.path(), linear_shapes(bert.base, ("query", "value")), seed=1, tasks=2)


@pytest.fixture(scope="module")
def bundle(bert: Workshop, adapter: Path) -> Bundle:
    return bert.export(adapter, mode="dynamic", top_k=2)


def put(name: str, number: float) -> Callable[[ir.Graph], None]:
    def change(graph: ir.Graph) -> None:
        value = graph.initializers[name]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array.reshape(-1)[:3] = number
        value.const_value = ir.Tensor(array, name=name)

    return change


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e38], ids=str)
@pytest.mark.parametrize(
    ("name", "where"),
    [(f"{VALUE}.lora_B", f"first drifting module {VALUE}"), ("classifier.weight", "logits")],
    ids=["module", "output"],
)
def test_a_bundle_of_no_numbers(
    bert: Workshop, bundle: Bundle, cli: Cli, number: float, name: str, where: str, recwarn: pytest.WarningsRecorder
) -> None:
    wrong = bert.edited(bundle, put(name, number))
    code, out, err = cli("validate", wrong.path, "--provider", "cpu", "--quiet")
    assert code == 4
    assert f"fails at {where}: " in err or err.startswith(f"error: {name}: differs from its source")
    assert len(err.splitlines()) == 1
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]
    assert f"fails at {where}: " in out
    assert "failed" in (wrong.path / "report.html").read_text()
    code, out, _ = cli("validate", wrong.path, "--provider", "cpu", "--quiet", "--json")
    assert code == 4
    saved = strict((wrong.path / "validation.json").read_text())
    assert strict(out) == saved
    measured = saved["providers"][0]["tasks"][0]
    found = measured["outputs"][where] if where == "logits" else measured["modules"][VALUE]
    assert found["ratio"] == 1e30
    assert (found["error"] is None) == (not math.isfinite(number))


def test_float16_that_overflowed(bert: Workshop, adapter: Path, cli: Cli) -> None:
    """What float32 holds, and float16 makes infinite."""
    bundle = bert.export(adapter, mode="conditioned", top_k=2, precision="fp16")
    wrong = bert.edited(bundle, put(f"{VALUE}.lora_B", math.inf))
    code, _, err = cli("validate", wrong.path, "--provider", "cpu", "--quiet")
    assert (code, len(err.splitlines())) == (4, 1)
    assert f"first drifting module {VALUE}: it is infinite or not a number somewhere" in err
    assert strict((wrong.path / "validation.json").read_text())["passed"] is False


def test_a_base_of_no_numbers_proves_nothing(bert: Workshop, adapter: Path, cli: Cli) -> None:
    """Beside a noise floor that is infinite, any error would be small."""
    base = Path(shutil.copytree(bert.base, bert.path()))
    tensors = load_file(base / "model.safetensors")
    tensors["classifier.weight"][0, 0] = np.nan
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    workshop = Workshop(base, bert.path())
    workshop.folder.mkdir()
    bundle = workshop.export(adapter, mode="conditioned", top_k=2)
    code, out, err = cli("validate", bundle.path, "--provider", "cpu", "--quiet")
    assert code == 4
    assert err
    assert "task task0 fails at logits: the reference itself is infinite or not a number there" in out


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def report(number: Any) -> Report:
    """One in which every number is this one."""
    measured = Measured(number, number, number, number, number, number)
    task = TaskReport(
        "t", True, np.int64(3), np.int64(1), {"m": measured}, {"o": measured}, None, "m", "wrong",  # type: ignore[arg-type]
        number, Metric("accuracy", 2, number, number),
        GreedyAgreement(2, number, Disagreement("b", 0, 1, 2, 3, number)),
        RoundedActivations({"o": number}, number, GreedyAgreement(2, number, None)),
    )  # fmt: skip
    drop = BudgetedDrop(Drop("t", "accuracy", True, 3, number, number, number, number, number), 1.0)
    live = LiveRoute(2, number, {"t/o": number})
    batch = Batch("b", {"input_ids": np.ones((1, 2)), "attention_mask": np.array([[1, 0]])}, ("t",))
    backends = [BackendReport("cpu", [task, replace(task, failed_at=None, reason=None)], "functions")]
    checks = [Check("p", "compared", "is <64>")]
    return Report(
        tiny_manifest("static"),
        [batch],
        0,
        live,
        backends,
        [drop],
        warnings=["w"],
        checks=checks,
        seconds=StageTimes(a=1.0),
    )


@pytest.mark.parametrize("number", BAD, ids=repr)
def test_every_number_of_a_report(number: Any) -> None:
    made = report(number)
    saved = strict(dump_json(made.to_json()).decode())
    wanted = float(number) if math.isfinite(number) else None
    task = saved["providers"][0]["tasks"][0]
    assert task["modules"]["m"] == dict.fromkeys(("ratio", "error", "noise", "scale", "effect", "effect_ratio"), wanted)
    assert task["greedy"]["first_disagreement"]["margin"] == wanted
    assert saved["drops"][0]["points"] == saved["frozen_from_live"]["group_agreement"] == wanted
    assert saved["inputs"][0] == {"name": "b", "shape": [1, 2], "padded": True, "prompt": None}
    assert saved["passed"] is False
    assert "cpu, functions: failed" in report_text(made)
    assert "&lt;64&gt;" in report_html(made)


def test_json_types() -> None:
    value = {"a": (np.float32(0.5), np.int8(3), np.bool_(False)), "b": np.array([1.0, np.nan]), 3: None, "c": "x"}
    assert json_types(value) == {"a": [0.5, 3, False], "b": [1.0, None], "3": None, "c": "x"}


def passing() -> Report:
    return replace(report(1.0), providers=[], drops=[])


def test_a_wrong_part_fails_and_is_named() -> None:
    checks = [
        Check("embeddings", "compared"),
        Check("eptx.json: max_length", "compared", "is 64; the base has 512"),
        Check("eptx.json: vocab_size", "compared", "is 7; the base has 8"),
        Check("output extra", "unchecked", why="the trained model has none of this name"),
        Check("b", "run"),
    ]
    found = replace(passing(), checks=checks)
    assert not found.passed
    assert found.reason == "eptx.json: max_length: is 64; the base has 512 (and 1 more checks)"
    table = report_text(found)
    assert "fail: eptx.json: vocab_size: is 7; the base has 8" in table
    assert "not checked: output extra: the trained model has none of this name" in table
    assert "checks: 3 compared, 1 run, 1 unchecked" in table
    assert found.to_json()["checks"][1]["wrong"] == "is 64; the base has 512"
    honest = replace(passing(), checks=[checks[0], *checks[3:]])
    assert honest.passed
    assert honest.reason == ""
