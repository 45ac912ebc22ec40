"""Wrong requests are refused in one line that names the input, before ONNX Runtime sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eptx.bundle import Task, TensorSpec, Text
from eptx.errors import RequestError
from eptx.runtime import Session
from eptx.runtime.requests.checks import check_inputs
from tests.support.tiny_bundle import NARROW, tiny_manifest, write_tiny

IDS = np.array([[2, 4, 3], [2, 6, 3]])
NAN = np.array([[1.0, np.nan, 0.0]] * 2)


def _with(name: str, value: Any) -> dict[str, Any]:
    return {"input_ids": IDS, name: value}


ARRAYS: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "input input_ids is missing"),
    "only a mask": ({"attention_mask": IDS * 0 + 1}, "input input_ids is missing"),
    "unknown input": (_with("pixel_values", IDS), "no input 'pixel_values'; the model has input_ids, "),
    "a name that is no string": (_with(3, IDS), "no input 3"),  # type: ignore[arg-type]
    "one dimension": (
        {"input_ids": IDS[0]},
        r"input_ids has 1 dimensions; the model takes \[batch, length\]",
    ),
    "three dimensions": ({"input_ids": IDS[None]}, "input_ids has 3 dimensions"),
    "a number": ({"input_ids": 3}, "input_ids has 0 dimensions"),
    "floats": ({"input_ids": IDS.astype(np.float32)}, "input_ids is float32; the model takes int64"),
    "complex": ({"input_ids": IDS.astype(complex)}, "input_ids is complex128"),
    "strings": ({"input_ids": [["a", "b"]]}, "input_ids is <U1; the model takes int64"),
    "objects": ({"input_ids": IDS.astype(object)}, "input_ids is object; the model takes int64"),
    "none": ({"input_ids": None}, "input_ids is object; the model takes int64"),
    "dates": ({"input_ids": IDS.astype("M8[s]")}, "input_ids is datetime64"),
    "booleans": ({"input_ids": IDS > 3}, "input_ids is bool; the model takes int64"),
    "structured": ({"input_ids": np.zeros((2, 3), [("a", int)])}, "the model takes int64"),
    "ragged": ({"input_ids": [[1, 2], [3]]}, "input_ids cannot be made an array; are its rows of one length"),
    "masked array": ({"input_ids": np.ma.masked_equal(IDS, 6)}, "input_ids is a masked array"),
    "big-endian": ({"input_ids": IDS.astype(">i8")}, "input_ids is not in this machine's byte order"),
    "big-endian short": ({"input_ids": IDS.astype(">i2")}, "input_ids is not in this machine's byte order"),
    "big-endian mask": (
        _with("attention_mask", (IDS * 0 + 1).astype(">i8")),
        "attention_mask is not in this",
    ),
    "too large for int64": ({"input_ids": IDS.astype(np.uint64) << np.uint64(62)}, "do not fit int64"),
    "empty batch": ({"input_ids": IDS[:0]}, "input_ids is empty: its batch is 0"),
    "empty list": ({"input_ids": []}, "the model takes"),
    "no tokens": ({"input_ids": IDS[:, :0]}, "input_ids is empty: its length is 0"),
    "too long": ({"input_ids": np.ones((1, 17), int)}, "17 tokens a row; the model reads at most 16"),
    "negative id": ({"input_ids": [[2, 3], [2, -1]]}, r"input_ids\[1, 1\] is -1; token ids are 0 to 11"),
    "id too large": ({"input_ids": [[2, 12]]}, r"input_ids\[0, 1\] is 12; token ids are 0 to 11"),
    "negative small id": ({"input_ids": np.array([[2, -1]], np.int8)}, r"input_ids\[0, 1\] is -1"),
    "other batch": (_with("attention_mask", IDS[:1] * 0 + 1), "attention_mask has batch 1; input_ids has 2"),
    "other length": (_with("token_type_ids", IDS[:, :2] * 0), "token_type_ids has length 2; input_ids has 3"),
    "mask of floats": (_with("attention_mask", IDS * 0.0 + 1), "attention_mask is float64"),
    "mask of twos": (
        _with("attention_mask", IDS * 0 + 2),
        r"attention_mask\[0, 0\] is 2; mask values are 0 to 1",
    ),
    "additive mask": (_with("attention_mask", IDS * 0 - 1), r"attention_mask\[0, 0\] is -1"),
    "mask hides a row": (
        _with("attention_mask", [[1, 1, 1], [0, 0, 0]]),
        "attention_mask hides all of row 1",
    ),
    "token types": (
        _with("token_type_ids", IDS * 0 + 2),
        r"token_type_ids\[0, 0\] is 2; token types are 0 to 1",
    ),
    "task_id range": (_with("task_id", [0, 4]), r"task_id\[1\] is 4; this bundle has 0 to 3"),
    "task_id infers": (_with("task_id", [0, -1]), r"task_id\[1\] is -1; this bundle has 0 to 3"),
    "task_id batch": (_with("task_id", [0]), r"task_id has shape \[1\]; the batch is 2"),
    "task_id rank": (_with("task_id", [[0, 1]]), r"task_id has shape \[1, 2\]; the batch is 2"),
    "task_id floats": (_with("task_id", [0.0, 1.0]), "task_id is float64; the model takes int64"),
    "task_id big-endian": (_with("task_id", np.array([0, 1], ">i8")), "task_id is not in this machine's"),
    "a set": ({1, 2}, "inputs must be arrays by name or texts, not set"),
    "an array": (IDS, "inputs must be arrays by name or texts, not ndarray"),
    "bytes": (b"good film", "text 0 is neither a string nor a pair"),
    "none at all": (None, "inputs must be arrays by name or texts, not NoneType"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_inputs(conditioned: Session, case: str) -> None:
    inputs, said = ARRAYS[case]
    task = None if isinstance(inputs, dict) and "task_id" in inputs else "mnli"
    with pytest.raises(RequestError, match=said) as e:
        conditioned.run(inputs, task)
    assert "\n" not in str(e.value)
    assert e.value.exit_code == 3


TASKS: dict[str, tuple[Any, str]] = {
    "unknown": ("cola", "no task 'cola'; this bundle has sst2, mnli, stsb, base"),
    "misspelt": ("sst-2", "no task 'sst-2'; did you mean 'sst2'[?] "),
    "case": ("MNLI", "no task 'MNLI'; this bundle has"),
    "empty": ("", "no task ''; "),
    "lines": ("a\nb", r"no task 'a\\nb'; "),
    "long": ("x" * 10_000, "no task 'xxxxx"),
    "none": (None, "name a task: sst2, mnli, stsb, base"),
    "too few": (["mnli"], "1 tasks for a batch of 2; give one name, or one per row"),
    "too many": (["mnli"] * 3, "3 tasks for a batch of 2"),
    "no tasks": ([], "0 tasks for a batch of 2"),
    "one unknown": (["mnli", "cola"], "no task 'cola'"),
    "numbers": ([0, 1], "no task 0; this bundle has"),
    "a number": (1, "a task is a name or one name per row, not int"),
    "bytes": (b"mnli", "a task is a name or one name per row, not bytes"),
    "auto": ("auto", "no task 'auto'; this bundle has"),
}


@pytest.mark.parametrize("case", TASKS)
def test_tasks(conditioned: Session, case: str) -> None:
    task, said = TASKS[case]
    with pytest.raises(RequestError, match=said) as e:
        conditioned.run({"input_ids": IDS}, task)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 250


def test_tasks_of_other_modes(static: Session, dynamic: Session, conditioned: Session) -> None:
    with pytest.raises(RequestError, match="no task 'sst2'; this bundle has mnli"):
        static.run({"input_ids": IDS}, "sst2")
    with pytest.raises(RequestError, match="does not choose the task by a request"):
        static.run({"input_ids": IDS, "task_id": [1, 1]})
    with pytest.raises(RequestError, match=r"task_id\[0\] is -2"):
        dynamic.run({"input_ids": IDS, "task_id": [-2, 0]})
    with pytest.raises(RequestError, match="either task or the input task_id, not both"):
        conditioned.run({"input_ids": IDS, "task_id": [0, 1]}, "mnli")


def test_task_ids_with_gaps(tmp_path: Path) -> None:
    """A manifest may leave ids out."""
    session = Session(write_tiny(tmp_path / "b", tasks=(Task("sst2", 0), Task("stsb", 2))).path)
    with pytest.raises(RequestError, match=r"task_id\[1\] is 1; this bundle has 0, 2$"):
        session.run({"input_ids": IDS, "task_id": [0, 1]})


@pytest.mark.parametrize(
    ("inputs", "task", "said"),
    [
        (
            {"input_ids": [[2, 11], [2, 10]]},
            ["sst2", "mnli"],
            r"input_ids\[1, 1\] is 10; task mnli has token ids 0 to 9$",
        ),
        ({"input_ids": [[2, 8], [8, 3]]}, ["mnli", "base"], r"input_ids\[1, 0\] is 8; task base has token ids 0 to 7$"),
        ({"input_ids": [[2, 3], [11, 3]], "task_id": [3, 1]}, None, r"input_ids\[1, 0\] is 11; task mnli has"),
        ({"input_ids": [[2, 12], [2, 3]]}, "sst2", r"input_ids\[0, 1\] is 12; token ids are 0 to 11$"),
        (["a film", "a film is not good"], ["base", "mnli"], r"input_ids\[1, 4\] is 10; task mnli has"),
    ],
)
def test_a_token_that_the_task_lacks(tmp_path: Path, inputs: Any, task: Any, said: str) -> None:
    session = Session(write_tiny(tmp_path / "b", tasks=NARROW, tokenizer=True).path)
    with pytest.raises(RequestError, match=said) as e:
        session.run(inputs, task)
    assert "\n" not in str(e.value)


def test_padding_may_be_a_token_that_the_task_lacks(tmp_path: Path) -> None:
    """The pad of a batch is that of its tokenizer, which another task may have added."""
    text = Text(16, pad=11)
    session = Session(write_tiny(tmp_path / "b", tasks=NARROW, tokenizer=True, text=text).path)
    mixed = session.run(["a good book", "bad"], ["sst2", "base"])
    assert session.tokenizer(["a good book", "bad"])["input_ids"][1, -1] == 11
    np.testing.assert_allclose(mixed["logits"][1], session.run("bad", "base")["logits"][0], atol=1e-6)


PIXELS = tiny_manifest(inputs=(TensorSpec("pixel_values", "float16", ("batch", 3, "h + 2")),))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.full((1, 3, 2), np.nan), "pixel_values holds NaN or infinite values"),
        (np.full((1, 3, 2), np.inf, np.float16), "pixel_values holds NaN or infinite values"),
        (np.full((1, 3, 2), 1e9), "pixel_values holds NaN or infinite values"),
        (np.full((1, 4, 2), 1.0), "pixel_values has 4 in dimension 1; the model takes 3"),
        (np.full((1, 3, 0), 1.0), r"pixel_values is empty: its h \+ 2 is 0"),
        (np.zeros((1, 3, 2), np.uint8), "pixel_values is uint8; the model takes float16"),
        (np.zeros((1, 3, 2), np.longdouble), "pixel_values is .*; the model takes float16"),
        (np.zeros((1, 3, 2), ">f4"), "pixel_values is not in this machine's byte order"),
    ],
)
def test_pixels(value: np.ndarray, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        check_inputs({"pixel_values": value}, PIXELS)


def test_pixels_of_another_floating_type() -> None:
    arrays = check_inputs({"pixel_values": np.ones((2, 3, 5))}, PIXELS)
    assert arrays["pixel_values"].dtype == np.float16


ANY_ARRAY = hnp.arrays(
    hnp.scalar_dtypes() | st.sampled_from([np.dtype(np.int64)] * 10),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["input_ids", "attention_mask", "token_type_ids", "task_id", "x"]), ANY_ARRAY),
    st.none() | st.sampled_from(["mnli", "sst2"]) | st.lists(st.text(max_size=3) | st.just("mnli"), max_size=3),
)
def test_any_request(inputs: dict[str, Any], task: Any) -> None:
    session = _session()
    try:
        session.run(inputs, task)
    except RequestError as e:
        assert "\n" not in str(e)


_opened: dict[str, Session] = {}


def _session() -> Session:
    return _opened["conditioned"]


@pytest.fixture(autouse=True, scope="module")
def _open(bundles: Path) -> None:
    _opened["conditioned"] = Session(bundles / "conditioned", threads=1)
