"""Every backend is validated by itself: a bundle's functions, and native kernels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import onnx_ir as ir
import pytest

from eptx.bundle import Bundle
from eptx.exporter.validation import Report, ValidateOptions, report_text, validate_bundle
from eptx.runtime.ort import kernels
from eptx.runtime.validation.running.backends import backends
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_lora, write_tucka
from tests.exporter.validation.workshop import Workshop

native = pytest.mark.skipif(kernels.kernel_library() is None, reason="the native kernels are not built")


@pytest.fixture(scope="module")
def ept(bert: Workshop) -> Path:
    return write_ept(bert.path(), linear_shapes(bert.base, ("query", "value")), seed=1, tasks=2)


@pytest.fixture(scope="module")
def dynamic(bert: Workshop, ept: Path) -> Bundle:
    return bert.export(ept, mode="dynamic", top_k=2)


def subtract(name: str) -> Callable[[ir.Model], None]:
    """An operator's body takes off what it should add."""

    def change(model: ir.Model) -> None:
        (body,) = [function for function in model.functions.values() if function.name == name]
        [node for node in body if node.op_type == "Add"][-1].op_type = "Sub"

    return change


def negate(ending: str) -> Callable[[ir.Model], None]:
    """Factors of every update, with the other sign."""

    def change(model: ir.Model) -> None:
        for name, value in model.graph.initializers.items():
            if name.endswith(ending) and value.const_value is not None:
                value.const_value = ir.Tensor(-value.const_value.numpy(), name=name)

    return change


def passed(report: Report) -> dict[str, bool]:
    return {provider.name: not provider.blocking for provider in report.providers}


@native
@pytest.mark.parametrize("method", ["ept", "tucka"])
def test_a_body_that_subtracts_under_kernels_that_add(bert: Workshop, ept: Path, method: str) -> None:
    """Browsers, Node and CUDA run the body."""
    adapter, name, bundle = _made(bert, ept, method)
    assert passed(bert.validate(bundle, adapter)) == {"cpu, functions": True, "cpu, kernels": True}
    report = bert.validate(bert.rebuilt(bundle, subtract(name)), adapter)
    assert passed(report) == {"cpu, functions": False, "cpu, kernels": True}
    assert report.reason.startswith("provider cpu, functions: task task0 fails at first drifting module ")
    *_, functions, kernels = report_text(report).splitlines()
    assert functions.startswith("cpu, functions: failed; worst ")
    assert kernels.startswith("cpu, kernels: passed; worst ")


@native
@pytest.mark.parametrize(("method", "factor"), [("ept", "lora_B"), ("tucka", "tucka_g")])
def test_kernels_that_are_wrong_over_bodies_that_are_right(bert: Workshop, ept: Path, method: str, factor: str) -> None:
    """A body that takes off the negative adds; a kernel knows nothing of that."""
    adapter, name, bundle = _made(bert, ept, method)

    def change(model: ir.Model) -> None:
        subtract(name)(model)
        negate(factor)(model)

    report = bert.validate(bert.rebuilt(bundle, change), adapter)
    assert passed(report) == {"cpu, functions": True, "cpu, kernels": False}
    assert report.reason.startswith("provider cpu, kernels: task task0 fails at first drifting module ")


def _made(bert: Workshop, ept: Path, method: str) -> tuple[Path, str, Bundle]:
    """An adapter, the operator of its updates, and its bundle."""
    if method == "ept":
        return ept, "PyramidDelta", bert.export(ept, mode="conditioned", top_k=2)
    adapter = write_tucka(bert.path(), linear_shapes(bert.base, ("query", "value")), seed=6)
    return adapter, "TuckerDelta", bert.export(adapter, mode="dynamic", routing="row")


def test_a_library_that_does_not_load_is_a_warning(bert: Workshop, dynamic: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "libeptx_ops.so"
    broken.write_bytes(b"not a library")
    with mock.patch.object(kernels, "kernel_library", return_value=broken):
        report = bert.validate(dynamic)
    assert report.passed
    assert passed(report) == {"cpu, functions": True}
    (warning,) = report.warnings
    assert warning.startswith(
        "cpu, kernels: not validated; the bundle runs by its functions: libeptx_ops.so does not load"
    )


@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_a_bundle_of_standard_operators_runs_one_way(bert: Workshop, mode: str) -> None:
    shapes = linear_shapes(bert.base, ("query", "value"))
    adapters = [write_lora(bert.path(), shapes, seed=seed) for seed in (1, 2)]
    bundle = bert.export(adapters[: 1 if mode == "static" else 2], mode=mode)
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu", "cpu"]))
    assert report.passed
    assert [p.operators for p in report.providers] == (
        ["standard"] if not bundle.operators else ["functions", "kernels"]
    )
    saved = json.loads((bundle.path / "validation.json").read_text())
    assert [(p["provider"], p["operators"]) for p in saved["providers"]] == [
        (p.provider, p.operators) for p in report.providers
    ]


def test_kernels_that_are_switched_off(bert: Workshop, dynamic: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPTX_NATIVE", "0")
    assert [backend.name for backend in backends(dynamic, ["cpu"])] == ["cpu, functions"]
