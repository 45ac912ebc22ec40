"""Which sessions run the kernels, and that the others say why and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import eptx
from eptx.bundle import Bundle, BundleWriter
from eptx.exporter import ops
from eptx.manifest.names import OPERATOR_DOMAIN
from tests.runtime.kernels.operators import library
from tests.runtime.test_session import ARRAYS
from tests.support.tiny_bundle import HIDDEN, LABELS, TASKS, tiny_manifest, tiny_model

Pairs = Callable[[ir.DataType], Bundle]


@pytest.fixture
def bundle(tmp_path: Path) -> Pairs:
    """A bundle whose logits are changed by a LowRankDelta of float or double, beside a function that is no operator."""
    library()

    def write(dtype: ir.DataType) -> Bundle:
        model = ir.from_proto(tiny_model())
        model.graph.opset_imports[""] = 18
        for function in model.functions.values():
            function.opset_imports[""] = 18
        rng = np.random.default_rng(1)
        values = []
        for name, shape in (("pair_a", (len(TASKS) - 1, HIDDEN, 2)), ("pair_b", (len(TASKS) - 1, 2, LABELS))):
            tensor = ir.Tensor(rng.normal(size=shape).astype(dtype.numpy()), name=name)
            value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape), const_value=tensor)
            model.graph.register_initializer(value)
            values.append(value)
        named = {value.name: value for node in model.graph for value in node.outputs}
        logits, pooled = named["logits"], named["pooled"]
        task = next(value for value in model.graph.inputs if value.name == "task_id")
        y, x = (ir.node("Cast", [value], attributes={"to": int(dtype)}) for value in (logits, pooled))
        delta = ir.node("LowRankDelta", [y.outputs[0], x.outputs[0], task, *values], domain=OPERATOR_DOMAIN)
        back = ir.node("Cast", delta.outputs, attributes={"to": int(ir.DataType.FLOAT)})
        model.graph.extend([y, x, delta, back])
        index = [value.name for value in model.graph.outputs].index("logits")
        back.outputs[0].type, back.outputs[0].shape = logits.type, logits.shape
        logits.name, back.outputs[0].name = "logits.base", "logits"
        model.graph.outputs[index] = back.outputs[0]
        ops.add_functions(model, ops.single(ops.LowRankDelta))
        with BundleWriter(tmp_path / dtype.name) as writer:
            ir.save(model, writer.folder / "model.onnx")
            return writer.finish(tiny_manifest())

    return write


def _logits(session: eptx.Session) -> np.ndarray:
    return session.run(ARRAYS, ["stsb", "base", "mnli"])["logits"]


def _off(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> eptx.Session:
    with monkeypatch.context() as patch:
        patch.setenv("EPTX_NATIVE", "0")
        return eptx.Session(bundle)


def test_kernels_beside_other_functions(bundle: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the domain that is none of the operators runs as the function that it is."""
    made = bundle(ir.DataType.FLOAT)
    session, off = eptx.Session(made), _off(made, monkeypatch)
    assert session.info()["kernels"] == {"running": True, "reason": None}
    assert off.info()["kernels"] == {"running": False, "reason": "switched off by EPTX_NATIVE=0"}
    np.testing.assert_allclose(_logits(session), _logits(off), rtol=0, atol=1e-5)


def test_doubles(bundle: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundle(ir.DataType.DOUBLE)
    session = eptx.Session(made)
    kernels = session.info()["kernels"]
    assert not kernels["running"]
    assert kernels["reason"].startswith("they do not run this model: ")
    assert "\n" not in kernels["reason"]
    assert "double" in kernels["reason"]
    np.testing.assert_array_equal(_logits(session), _logits(_off(made, monkeypatch)))


def test_the_callers_own_options(bundle: Pairs) -> None:
    made = bundle(ir.DataType.FLOAT)
    options = ort.SessionOptions()
    session = eptx.Session(made, session_options=options)
    assert session.info()["kernels"] == {"running": False, "reason": "the session_options are the caller's own"}
    options = ort.SessionOptions()
    options.register_custom_ops_library(library())
    np.testing.assert_allclose(
        _logits(eptx.Session(made, session_options=options)), _logits(session), rtol=0, atol=1e-5
    )


def test_a_library_that_does_not_load(bundle: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "libeptx_ops.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr("eptx.runtime.ort.kernels.kernel_library", lambda: broken)
    session = eptx.Session(bundle(ir.DataType.FLOAT))
    kernels = session.info()["kernels"]
    assert not kernels["running"]
    assert kernels["reason"].startswith("libeptx_ops.so does not load: ")
    assert "\n" not in kernels["reason"]
    assert np.isfinite(_logits(session)).all()


def test_no_library(bundle: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eptx.runtime.ort.kernels.kernel_library", lambda: None)
    assert "installed without them" in eptx.Session(bundle(ir.DataType.FLOAT)).info()["kernels"]["reason"]
