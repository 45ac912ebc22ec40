"""Sessions of libeptx compute what those of Python compute."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

import eptx
from eptx.bundle import BundleWriter, OnnxRuntime
from eptx.errors import NotSupportedError, RequestError
from eptx.exporter import ExportOptions
from tests.runtime.conftest import bundles  # noqa: F401
from tests.runtime.cpp.library import Environment, NativeError, Session, load
from tests.runtime.test_session import ARRAYS, IDS, MASK, TYPES
from tests.support.quantized import quantized
from tests.support.tiny_bundle import NARROW, TASKS, expected_logits, tiny_manifest, tiny_model, write_tiny


@pytest.fixture(scope="module")
def conditioned(bundles: Path) -> Session:  # noqa: F811
    load()
    return Session(bundles / "conditioned")


def test_the_same_as_python(bundles: Path) -> None:  # noqa: F811
    load()
    for mode, tasks in {
        "static": (None, "mnli"),
        "conditioned": ("stsb", ["stsb", "sst2", "base"]),
        "dynamic": (None, "auto", ["stsb", "auto", "mnli"]),
    }.items():
        python, native = eptx.Session(bundles / mode, threads=1), Session(bundles / mode)
        for task in tasks:
            for inputs in (ARRAYS, {"input_ids": IDS}, {"input_ids": IDS[:1, :2], "attention_mask": MASK[:1, :2]}):
                rows = len(inputs["input_ids"])
                names = task[:rows] if isinstance(task, list) else task
                want, (got, got_tasks) = python.run(inputs, names), native.run(inputs, names)
                assert list(got) == list(want)
                assert tuple(got_tasks) == want.tasks
                for name, array in got.items():
                    np.testing.assert_array_equal(array, want[name])


def test_a_quantized_bundle(tmp_path: Path) -> None:
    """Bit-equal to Python, with activations rounded to 8 bits."""
    load()
    golden = Path(__file__).parents[2] / "golden" / "ept_bert48"
    options = ExportOptions(mode="conditioned", top_k=2)
    budget = {"task0": 0.5, "task1": 2}
    bundle = quantized(golden / "base", [golden / "adapter"], tmp_path / "b", options, "int8", budget=budget, rows=9)
    ids = np.random.default_rng(0).integers(3, 90, (3, 9))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    tasks = ["task1", "task5", "base"]
    want, (got, _) = eptx.Session(bundle, threads=1).run(inputs, tasks), Session(bundle.path).run(inputs, tasks)
    assert list(got) == list(want)
    for name, array in got.items():
        np.testing.assert_array_equal(array, want[name])


def test_what_a_session_tells(bundles: Path, conditioned: Session) -> None:  # noqa: F811
    manifest = eptx.Session(bundles / "conditioned").manifest
    assert conditioned.tasks() == [
        (t.name, t.id, t.labels, list(t.label_names) if t.label_names else None) for t in TASKS
    ]
    assert conditioned.tensors("input") == [(s.name, s.dtype, s.shape) for s in manifest.inputs]
    assert conditioned.tensors("output") == [(s.name, s.dtype, s.shape) for s in manifest.outputs]
    info = json.loads(conditioned.info())
    assert info["bundle"] == str(bundles / "conditioned")
    assert (info["mode"], info["method"], info["provider"]) == ("conditioned", "ept", "cpu")
    assert info["tasks"] == [t.name for t in TASKS]
    assert set(info["kernels"]) == {"running", "reason"}


def test_into_buffers(conditioned: Session) -> None:
    hidden, logits = np.full((3, 4, 4), np.nan, np.float32), np.full(20, np.nan, np.float32)
    sizes = conditioned.run_into(ARRAYS, ["stsb", "sst2", "mnli"], {"logits": logits, "last_hidden_state": hidden})
    assert sizes == [(36, (3, 3)), (192, (3, 4, 4))]
    outputs, _ = conditioned.run(ARRAYS, ["stsb", "sst2", "mnli"])
    np.testing.assert_array_equal(logits[:9].reshape(3, 3), outputs["logits"])
    assert np.isnan(logits[9:]).all()
    np.testing.assert_array_equal(hidden, outputs["last_hidden_state"])
    used = np.zeros(3, np.int64)
    conditioned.run_into(ARRAYS, ["stsb", "sst2", "mnli"], {"task_id_used": used})
    assert used.tolist() == [2, 0, 1]


@pytest.mark.parametrize("given", [np.zeros(0, np.float32), np.zeros(8, np.float32)])
def test_buffers_too_small(conditioned: Session, given: np.ndarray) -> None:
    with pytest.raises(NativeError, match=f"output logits needs 36 bytes; its buffer has {given.nbytes}") as e:
        conditioned.run_into(ARRAYS, "mnli", {"logits": given})
    assert e.value.status == 3
    assert e.value.sizes == [(36, (3, 3))]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("ids", "tasks", "said"),
    [
        ([[2, 11], [2, 10]], ["sst2", "mnli"], "input input_ids[1, 1] is 10; task mnli has token ids 0 to 9"),
        ([[2, 8], [8, 3]], ["mnli", "base"], "input input_ids[1, 0] is 8; task base has token ids 0 to 7"),
        ([[2, 12], [2, 3]], ["sst2", "mnli"], "input input_ids[0, 1] is 12; token ids are 0 to 11"),
    ],
)
def test_a_token_that_the_task_lacks(tmp_path: Path, ids: list[list[int]], tasks: list[str], said: str) -> None:
    """In the words of Python; tokens that the mask hides do not count."""
    load()
    bundle = write_tiny(tmp_path / "b", tasks=NARROW)
    session, python = Session(bundle.path), eptx.Session(bundle)
    given = {"input_ids": np.array(ids)}
    numbers = {**given, "task_id": np.array([[task.name for task in NARROW].index(name) for name in tasks])}
    for inputs, names in ((given, tasks), (numbers, None)):
        for call in (session.run, python.run):
            with pytest.raises((NativeError, RequestError)) as e:
                call(inputs, names)
            assert str(e.value) == said
            assert getattr(e.value, "status", 3) == 3
        with pytest.raises(NativeError) as e:
            session.run_into(inputs, names, {"logits": np.zeros((2, 3), np.float32)})
        assert (e.value.status, str(e.value)) == (3, said)
    hidden = {"input_ids": np.minimum(np.array(ids), 11), "attention_mask": (np.array(ids) < 8).astype(int)}
    np.testing.assert_array_equal(session.run(hidden, tasks)[0]["logits"], python.run(hidden, tasks)["logits"])


def test_wrong_outputs(conditioned: Session) -> None:
    for name, dtype, said in (("x", "f4", "no output 'x'; the model has last"), ("logits", "f8", "logits is given as")):
        with pytest.raises(NativeError, match=said) as e:
            conditioned.run_into(ARRAYS, "mnli", {name: np.zeros(9, dtype)})
        assert e.value.status == 3


def _bundle(folder: Path, change: object, **changes: object) -> Path:
    model = tiny_model()
    change(model)  # type: ignore[operator]
    with BundleWriter(folder) as writer:
        onnx.save(model, writer.folder / "model.onnx")
        return writer.finish(tiny_manifest(**changes)).path


def test_an_output_that_is_an_input(tmp_path: Path) -> None:
    """ONNX Runtime may reuse the input's memory for the output; the caller's buffer must hold it all the same."""
    load()

    def passes(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.output[0] == "task_id_used":
                node.output[0] = "used"
            node.input[:] = ["used" if name == "task_id_used" else name for name in node.input]
        model.graph.node.add(op_type="Identity", input=["task_id"], output=["task_id_used"])

    session = Session(_bundle(tmp_path / "b", passes))
    used = np.full(3, 77, np.int64)
    session.run_into(ARRAYS, ["stsb", "sst2", "mnli"], {"task_id_used": used})
    assert used.tolist() == [2, 0, 1]


def test_an_output_larger_than_it_says(tmp_path: Path) -> None:
    """eptx.json and the graph say [batch]; the output is twice as long, and must not be written past the buffer."""
    load()

    def doubles(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.output[0] == "task_id_used":
                node.output[0] = "used"
            node.input[:] = ["used" if name == "task_id_used" else name for name in node.input]
        model.graph.node.add(op_type="Concat", input=["used", "used"], output=["task_id_used"]).attribute.add(
            name="axis", i=0, type=onnx.AttributeProto.INT
        )

    session = Session(_bundle(tmp_path / "b", doubles))
    used = np.full(6, 77, np.int64)
    with pytest.raises(NativeError) as e:
        session.run_into(ARRAYS, "mnli", {"task_id_used": used[:3]})
    assert e.value.status == 3
    assert used[3:].tolist() == [77] * 3
    with pytest.raises(NativeError, match=r"task_id_used has shape \[6\] for a batch of 3"):
        session.run(ARRAYS, "mnli")


def test_threads_and_arena(bundles: Path) -> None:  # noqa: F811
    load()
    want = expected_logits(IDS, MASK, TYPES, np.ones(3, int))
    for options in ({"threads": 2}, {"arena": False}, {"verify": False}, {"kernels": "off"}):
        got, _ = Session(bundles / "conditioned", **options).run(ARRAYS, "mnli")  # type: ignore[arg-type]
        np.testing.assert_allclose(got["logits"], want, atol=1e-6)
    with pytest.raises(NativeError, match="threads must be 0 or a positive number, not -1") as e:
        Session(bundles / "conditioned", threads=-1)
    assert e.value.status == 2


def test_the_variable_switches_kernels_off(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    load()
    os.environ.pop("EPTX_NATIVE", None)
    monkeypatch.setenv("EPTX_NATIVE", "0")
    kernels = json.loads(Session(bundles / "conditioned").info())["kernels"]
    assert kernels == {"running": False, "reason": "switched off by EPTX_NATIVE=0"}


def test_many_threads(conditioned: Session) -> None:
    def ask(i: int) -> tuple[bytes, list[str | None]]:
        ids = IDS[:, : i % 4 + 1]
        outputs, tasks = conditioned.run({"input_ids": ids}, [TASKS[(i + row) % 4].name for row in range(3)])
        return outputs["logits"].tobytes(), tasks

    alone = [ask(i) for i in range(200)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(200))) == alone


def test_handles_may_be_freed_in_any_order(bundles: Path) -> None:  # noqa: F811
    environment = Environment()
    session = Session(bundles / "static", environment=environment)
    environment.close()
    assert session.run(ARRAYS)[1] == ["mnli"] * 3


def test_the_arena_has_a_limit(bundles: Path) -> None:  # noqa: F811
    load()
    bundle = bundles / "conditioned"
    with pytest.raises(NativeError, match="arena_limit is 1000000 bytes; the weights of the sessions") as e:
        Session(bundle, environment=Environment(arena_limit=1_000_000))
    assert e.value.status == 6
    environment = Environment(arena_limit=6_000_000)
    session = Session(bundle, environment=environment)
    assert session.run(ARRAYS, "mnli")[1] == ["mnli"] * 3
    many = {"input_ids": np.ones((30_000, 16), np.int64)}
    with pytest.raises(NativeError, match="not enough memory") as e:
        session.run(many, "mnli")
    assert e.value.status == 6
    assert session.run(ARRAYS, "mnli")[1] == ["mnli"] * 3
    with pytest.raises(NativeError, match="arena_limit is 6000000 bytes"):
        Session(bundle, environment=environment)
    assert len(Session(bundle, environment=environment, arena=False).run(many, "mnli")[1]) == 30_000
    session.close()
    Session(bundle, environment=environment)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_weights_are_mapped(tmp_path: Path) -> None:
    load()
    session = Session(write_tiny(tmp_path / "bundle").path)
    data = str(tmp_path / "bundle" / "model.onnx.data")
    assert data in Path("/proc/self/maps").read_text()
    session.close()
    assert data not in Path("/proc/self/maps").read_text()


def test_a_bundle_for_a_newer_runtime_is_refused_as_python_does(tmp_path: Path) -> None:
    load()
    write_tiny(tmp_path / "b", onnxruntime=OnnxRuntime("99.0", 9, 18))
    with pytest.raises(NotSupportedError) as python:
        eptx.Session(tmp_path / "b")
    with pytest.raises(NativeError) as native:
        Session(tmp_path / "b")
    assert native.value.status == python.value.exit_code == 5
    assert str(native.value) == str(python.value)
    assert str(python.value).startswith("the bundle needs ONNX Runtime 99.0 or newer, and 1.")
    for needed in (None, OnnxRuntime("1.9", 9, 18), OnnxRuntime("0.99", 9, 18)):
        write_tiny(tmp_path / "b", onnxruntime=needed)
        assert Session(tmp_path / "b").run(ARRAYS, "mnli")
