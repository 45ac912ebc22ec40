"""Wrong requests to a bundle that was really exported, and what a session answers right after them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx import Session
from eptx.calibration import export_bundle
from eptx.errors import RequestError
from eptx.exporter import ExportOptions
from tests.malformed.scene import Scene

IDS = np.array([[1, 2, 3], [4, 5, 6]])
ONES = np.ones_like(IDS)
TASKS = ["cola", "stsb"]


@pytest.fixture(scope="module")
def conditioned(pristine: Scene) -> Session:
    return Session(pristine.bundle, threads=1)


@pytest.fixture(scope="module")
def dynamic(pristine: Scene, tmp_path_factory: pytest.TempPathFactory) -> Session:
    out = tmp_path_factory.mktemp("dynamic") / "b"
    options = ExportOptions(mode="dynamic", top_k=2, base_onnx=pristine.onnx)
    return Session(export_bundle(pristine.base, [pristine.ept], out, options), threads=1)


@pytest.fixture(scope="module")
def routed(pristine: Scene, tmp_path_factory: pytest.TempPathFactory) -> Session:
    out = tmp_path_factory.mktemp("routed") / "b"
    options = ExportOptions(mode="dynamic", base_onnx=pristine.onnx)
    return Session(export_bundle(pristine.base, [pristine.tucka], out, options), threads=1)


#: name -> inputs, task, what is said.
REQUESTS: dict[str, tuple[Any, Any, str]] = {
    "unknown task": ({"input_ids": IDS}, "rte", "no task 'rte'; this bundle has cola, mnli, stsb"),
    "no task": ({"input_ids": IDS}, None, "name a task: cola, mnli, stsb"),
    "inferred task": ({"input_ids": IDS}, "auto", "no task 'auto'"),
    "too few tasks": ({"input_ids": IDS}, ["cola"], "1 tasks for a batch of 2"),
    "too many tasks": ({"input_ids": IDS}, ["cola"] * 3, "3 tasks for a batch of 2"),
    "a task that is a number": ({"input_ids": IDS}, [0, 1], "no task 0"),
    "task id past the last": (
        {"input_ids": IDS, "task_id": [0, 4]},
        None,
        "input task_id[1] is 4; this bundle has 0 to 2",
    ),
    "task id negative": ({"input_ids": IDS, "task_id": [0, -1]}, None, "input task_id[1] is -1"),
    "task ids of half the batch": (
        {"input_ids": IDS, "task_id": [0]},
        None,
        "input task_id has shape [1]; the batch is 2",
    ),
    "task ids in the other byte order": (
        {"input_ids": IDS, "task_id": np.array([0, 1], ">i8")},
        None,
        "not in this machine's byte order",
    ),
    "task twice": ({"input_ids": IDS, "task_id": [0, 1]}, "cola", "either task or the input task_id"),
    "rank": ({"input_ids": IDS[0]}, TASKS, "input_ids has 1 dimensions; the model takes [batch, length]"),
    "rank of three": ({"input_ids": IDS[None]}, TASKS, "input_ids has 3 dimensions"),
    "floats": ({"input_ids": IDS.astype(np.float32)}, TASKS, "input_ids is float32; the model takes int64"),
    "objects": ({"input_ids": IDS.astype(object)}, TASKS, "input_ids is object; the model takes int64"),
    "text in an array": ({"input_ids": np.array([["a"], ["b"]])}, TASKS, "the model takes int64"),
    "rows of different lengths": ({"input_ids": [[1, 2], [3]]}, TASKS, "are its rows of one length?"),
    "token id past the last": ({"input_ids": IDS + 14}, TASKS, "input input_ids[1, 2] is 20; token ids are 0 to 19"),
    "token id negative": ({"input_ids": IDS - 2}, TASKS, "input input_ids[0, 0] is -1; token ids are 0 to 19"),
    "empty batch": ({"input_ids": IDS[:0]}, TASKS, "input_ids is empty: its batch is 0"),
    "rows without tokens": ({"input_ids": IDS[:, :0]}, TASKS, "input_ids is empty: its length is 0"),
    "too long": ({"input_ids": np.ones((2, 17), np.int64)}, TASKS, "17 tokens a row; the model reads at most 16"),
    "the other byte order": ({"input_ids": IDS.astype(">i8")}, TASKS, "input_ids is not in this machine's byte order"),
    "a mask in the other byte order": (
        {"input_ids": IDS, "attention_mask": ONES.astype(">i8")},
        TASKS,
        "attention_mask is not in this machine's",
    ),
    "a mask of another length": (
        {"input_ids": IDS, "attention_mask": ONES[:, :2]},
        TASKS,
        "attention_mask has length 2; input_ids has 3",
    ),
    "a mask of other numbers": ({"input_ids": IDS, "attention_mask": 2 * ONES}, TASKS, "mask values are 0 to 1"),
    "a mask that hides a row": ({"input_ids": IDS, "attention_mask": ONES * [[1], [0]]}, TASKS, "hides all of row 1"),
    "no input": ({}, TASKS, "input input_ids is missing"),
    "only a mask": ({"attention_mask": ONES}, TASKS, "input input_ids is missing"),
    "an unknown input": (
        {"input_ids": IDS, "token_type_ids": ONES},
        TASKS,
        "no input 'token_type_ids'; the model has input_ids, attention_mask",
    ),
    "text without a tokenizer": (["good film"], "cola", "no tokenizer.json; give arrays"),
    "neither arrays nor text": (7, "cola", "inputs must be arrays by name or texts, not int"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_refused(conditioned: Session, name: str) -> None:
    inputs, task, said = REQUESTS[name]
    with pytest.raises(RequestError) as e:
        conditioned.run(inputs, task)
    assert said in str(e.value)
    assert "\n" not in str(e.value)
    assert e.value.exit_code == 3
    assert [row.shape for row in conditioned.run({"input_ids": IDS}, TASKS).logits] == [(2,), (1,)]


def test_a_task_to_infer(dynamic: Session) -> None:
    for ids in ([0, -2], [0, 4]):
        with pytest.raises(RequestError, match=r"input task_id\[1\] is"):
            dynamic.run({"input_ids": IDS, "task_id": ids})
    assert set(dynamic.run({"input_ids": IDS, "task_id": [-1, -1]}).tasks) <= {"cola", "mnli", "stsb"}
    assert dynamic.run({"input_ids": IDS}, ["auto", "mnli"]).tasks[1] == "mnli"
    with pytest.raises(RequestError, match="no task 'base'; this bundle has cola, mnli, stsb"):  # it has no head
        dynamic.run({"input_ids": IDS}, ["auto", "base"])


def test_a_bundle_without_tasks_to_choose(routed: Session) -> None:
    with pytest.raises(RequestError, match="does not choose the task by a request"):
        routed.run({"input_ids": IDS, "task_id": [0, 0]})
    with pytest.raises(RequestError, match="no task 'base'; this bundle has task0"):
        routed.run({"input_ids": IDS}, "base")
    with pytest.raises(RequestError, match="this bundle has no output 'logits'"):
        routed.run({"input_ids": IDS}).labels  # noqa: B018


def test_a_session_needs_a_bundle(pristine: Scene, tmp_path: Path) -> None:
    from eptx.errors import BundleError, UsageError

    with pytest.raises(BundleError, match="no such bundle"):
        Session(tmp_path / "x")
    with pytest.raises(UsageError, match="no provider 'tpu'"):
        Session(pristine.bundle, provider="tpu")
    with pytest.raises(UsageError, match="threads must be a positive number"):
        Session(pristine.bundle, threads=0)
