"""Sessions compute what the model computes, from arrays and from many threads."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

import eptx
from eptx.bundle import BundleWriter, TensorSpec, read_bundle
from eptx.errors import BundleError, RequestError, UsageError
from eptx.runtime import Outputs, Session
from eptx.runtime.ort import sessions
from tests.support.tiny_bundle import TASKS, expected_logits, tiny_manifest, tiny_model, write_tiny

IDS = np.array([[2, 4, 5, 3], [2, 6, 3, 0], [2, 11, 7, 3]], np.int64)
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]], np.int64)
TYPES = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]], np.int64)
ARRAYS = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES}


def test_mixed_tasks(conditioned: Session) -> None:
    outputs = conditioned.run(ARRAYS, ["stsb", "sst2", "mnli"])
    expected = expected_logits(IDS, MASK, TYPES, np.array([2, 0, 1]))
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-6)
    assert outputs.tasks == ("stsb", "sst2", "mnli")
    assert [row.shape for row in outputs.logits] == [(1,), (2,), (3,)]
    assert outputs.labels[0] == pytest.approx(expected[0, 0])
    assert outputs.labels[1] == TASKS[0].label_names[int(expected[1, :2].argmax())]  # type: ignore[index]
    assert list(outputs) == ["last_hidden_state", "logits", "task_id_used"]
    assert len(outputs) == 3
    assert "last_hidden_state[3, 4, 4]" in repr(outputs)


def test_one_task_for_all_rows(conditioned: Session) -> None:
    for task in TASKS:
        outputs = conditioned.run(ARRAYS, task.name)
        np.testing.assert_allclose(outputs["logits"], expected_logits(IDS, MASK, TYPES, np.full(3, task.id)), atol=1e-6)
        assert {len(row) for row in outputs.logits} == {task.labels}
    assert outputs.labels == [None, None, None]


def test_task_ids_as_an_input(conditioned: Session) -> None:
    by_name = conditioned.run(ARRAYS, ["mnli", "base", "sst2"])
    by_id = conditioned.run({**ARRAYS, "task_id": np.array([1, 3, 0])})
    np.testing.assert_array_equal(by_name["logits"], by_id["logits"])
    assert by_name.tasks == by_id.tasks


def test_static(static: Session) -> None:
    for task in (None, "mnli", ["mnli"] * 3):
        outputs = static.run(ARRAYS, task)
        np.testing.assert_allclose(outputs["logits"], expected_logits(IDS, MASK, TYPES, np.ones(3, int)), atol=1e-6)
        assert outputs.tasks == ("mnli",) * 3


def test_inferred_tasks(dynamic: Session) -> None:
    for task in (None, "auto", ["auto"] * 3):
        assert dynamic.run(ARRAYS, task).tasks == ("sst2",) * 3
    mixed = dynamic.run(ARRAYS, ["stsb", "auto", "mnli"])
    assert mixed.tasks == ("stsb", "sst2", "mnli")
    assert [len(row) for row in mixed.logits] == [1, 2, 3]
    assert dynamic.run({**ARRAYS, "task_id": [2, -1, 1]}).tasks == ("stsb", "sst2", "mnli")


def test_left_out_inputs(conditioned: Session) -> None:
    outputs = conditioned.run({"input_ids": IDS}, "mnli")
    np.testing.assert_allclose(
        outputs["logits"],
        expected_logits(IDS, np.ones_like(IDS), np.zeros_like(IDS), np.ones(3, int)),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "same",
    [
        lambda a: a.astype(np.int32),
        lambda a: a.astype(np.uint8),
        lambda a: a.tolist(),
        lambda a: np.asfortranarray(a),
        lambda a: np.stack([a, a], axis=-1)[..., 0],
        lambda a: np.frombuffer(b"\0" + a.tobytes(), np.int64, offset=1).reshape(a.shape),
        lambda a: a.view(type("Sub", (np.ndarray,), {})),
    ],
)
def test_the_same_numbers_in_another_form(conditioned: Session, same) -> None:  # type: ignore[no-untyped-def]
    expected = conditioned.run(ARRAYS, "mnli")["logits"]
    given = {name: same(array) for name, array in ARRAYS.items()}
    np.testing.assert_array_equal(conditioned.run(given, "mnli")["logits"], expected)


def test_boolean_mask(conditioned: Session) -> None:
    expected = conditioned.run(ARRAYS, "mnli")["logits"]
    given = {**ARRAYS, "attention_mask": MASK.astype(bool)}
    np.testing.assert_array_equal(conditioned.run(given, "mnli")["logits"], expected)


def test_the_request_is_not_changed(conditioned: Session) -> None:
    arrays = {name: array.copy() for name, array in ARRAYS.items()}
    for array in arrays.values():
        array.flags.writeable = False
    conditioned.run(arrays, "mnli")
    assert set(arrays) == set(ARRAYS)


def test_many_threads(bundles: Path) -> None:
    session = Session(bundles / "conditioned")
    texts = ["good film", "the book is not bad", "a"]

    def ask(i: int) -> tuple[np.ndarray, list[object], tuple[str, ...]]:
        if i % 2:
            outputs = session.run([texts[i % 3]] * (i % 5 + 1), TASKS[i % 4].name)
        else:
            outputs = session.run({"input_ids": IDS[:, : i % 4 + 1]}, ["sst2", "stsb", "mnli"])
        return outputs["logits"], outputs.labels, outputs.tasks

    alone = [ask(i) for i in range(60)]
    with ThreadPoolExecutor(16) as pool:
        for (logits, labels, tasks), expected in zip(pool.map(ask, range(60)), alone, strict=True):
            np.testing.assert_array_equal(logits, expected[0])
            assert (labels, tasks) == expected[1:]


def test_first_texts_from_many_threads(bundles: Path) -> None:
    for _ in range(5):
        session = Session(bundles / "conditioned")
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _, s=session: s.run("good film", "mnli")["logits"], range(8)))
        assert all((r == results[0]).all() for r in results)


def test_what_a_session_says(bundles: Path, conditioned: Session) -> None:
    assert conditioned.tasks == ("sst2", "mnli", "stsb", "base")
    assert [spec.name for spec in conditioned.inputs][-1] == "task_id"
    assert conditioned.outputs == conditioned.manifest.outputs
    info = conditioned.info()
    assert info["provider"] == "cpu"
    assert info["bundle"] == str(bundles / "conditioned")
    assert json.loads(json.dumps(info)) == info


def test_a_bundle_already_read(bundles: Path) -> None:
    bundle = read_bundle(bundles / "static")
    assert Session(bundle).bundle is bundle
    assert eptx.Session is Session


def test_own_session_options(bundles: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = Session(bundles / "static", session_options=options, threads=1)
    assert session.run(ARRAYS).tasks == ("mnli",) * 3


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_bad_threads(bundles: Path, threads: object) -> None:
    with pytest.raises(UsageError, match="threads must be a positive number"):
        Session(bundles / "static", threads=threads)  # type: ignore[arg-type]


def test_errors_of_onnx_runtime_are_one_line(tmp_path: Path) -> None:
    model = tiny_model()
    model.graph.node.add(op_type="NoSuchOperator", input=["pooled"], output=["x"])
    with BundleWriter(tmp_path / "bundle") as writer:
        onnx.save(model, writer.folder / "model.onnx")
        bundle = writer.finish(tiny_manifest())
    with pytest.raises(BundleError, match=r"ONNX Runtime does not load it: .*NoSuchOperator") as e:
        Session(bundle)
    assert "\n" not in str(e.value)


def test_memory_errors_are_limits() -> None:
    error = sessions.wrapped(RuntimeError("bad\nallocation"), "x", RequestError)
    assert (error.exit_code, str(error)) == (6, "x: not enough memory: bad allocation")
    assert len(str(sessions.wrapped(RuntimeError("y" * 10_000), "x", RequestError))) < 400


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (*tiny_manifest().inputs, TensorSpec("more", "int64", ("batch",)))},
        {"inputs": (*tiny_manifest().inputs[:3], TensorSpec("task_id", "int32", ("batch",)))},
        {"outputs": tiny_manifest().outputs[:2]},
        {"outputs": (TensorSpec("last_hidden_state", "float32", ("batch",)), *tiny_manifest().outputs[1:])},
        {"outputs": (TensorSpec("logits", "float32", ("batch", 4)), *tiny_manifest().outputs[::2])},
    ],
)
def test_a_manifest_that_does_not_fit_the_model(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    bundle = write_tiny(tmp_path / "bundle", **change)
    with pytest.raises(BundleError, match=r"is not what eptx\.json says"):
        Session(bundle)


def test_a_model_that_answers_for_other_rows(tmp_path: Path) -> None:
    model = tiny_model()
    del model.graph.node[-1]  # logits
    model.graph.node.add(op_type="MatMul", input=["pooled", "first"], output=["logits"])
    model.graph.node[-1].input[0] = "types"
    weight = onnx.numpy_helper.from_array(np.zeros((4, 3), np.float32), "first")
    model.graph.initializer.append(weight)
    with BundleWriter(tmp_path / "bundle") as writer:
        onnx.save(model, writer.folder / "model.onnx")
        session = Session(writer.finish(tiny_manifest()))
    with pytest.raises(BundleError, match=r"output logits has shape \[2, 3\] for a batch of 3"):
        session.run(ARRAYS, "mnli")


def test_constant_folding_is_bounded(tmp_path: Path) -> None:
    import resource

    model = tiny_model()
    shape = onnx.numpy_helper.from_array(np.array([300_000_000], np.int64), "huge")
    model.graph.initializer.append(shape)
    model.graph.node.add(op_type="ConstantOfShape", input=["huge"], output=["zeros"])
    model.graph.node.add(op_type="ReduceSum", input=["zeros"], output=["unused_sum"])
    model.graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info("unused_sum", 1, None))
    with BundleWriter(tmp_path / "bundle") as writer:
        onnx.save(model, writer.folder / "model.onnx")
        outputs = (*tiny_manifest().outputs, TensorSpec("unused_sum", "float32", (1,)))
        bundle = writer.finish(tiny_manifest(outputs=outputs))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Session(bundle)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10  # KiB; folding would take 1.2 GB


def test_outputs_without_logits() -> None:
    with pytest.raises(RequestError, match="no output 'logits'; it has last_hidden_state"):
        _ = Outputs({"last_hidden_state": np.zeros((1, 2, 3))}, [TASKS[0]]).logits
