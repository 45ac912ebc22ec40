"""Requests of sound, of questions with several answers, and of texts beside images, which are batches of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from eptx.bundle import Bundle, BundleWriter, Task, TensorSpec
from eptx.errors import RequestError
from eptx.runtime import Session
from eptx.runtime.requests.checks import check_inputs
from eptx.runtime.serving.batching.collate import Collator, row_length
from tests.runtime.serving.servers import serving
from tests.support.tiny_bundle import tiny_manifest

_TOWERS = """
<ir_version: 8, opset_import: ["" : 17]>
towers (int64[texts, length] input_ids, float[images, 2] pixel_values, int64[1] task_id)
  => (float[images, texts] logits_per_image, float[texts] text_embeds)
  <int64[1] last = {-1}, int64[1] first = {0}, float[3, 2] scales = {1, 10, 2, 20, 3, 30}>
{
  words = Cast <to = 1> (input_ids)
  text_embeds = ReduceSum <keepdims = 0> (words, last)
  scale = Gather (scales, task_id)
  image = Mul (pixel_values, scale)
  sums = ReduceSum <keepdims = 1> (image, last)
  row = Unsqueeze (text_embeds, first)
  logits_per_image = MatMul (sums, row)
}
"""
_INPUTS = (
    TensorSpec("input_ids", "int64", ("texts", "length")),
    TensorSpec("pixel_values", "float32", ("images", 2)),
    TensorSpec("task_id", "int64", (1,)),
)
_OUTPUTS = (
    TensorSpec("logits_per_image", "float32", ("images", "texts")),
    TensorSpec("text_embeds", "float32", ("texts",)),
)


def _towers(folder: Path) -> Bundle:
    tasks = tuple(Task(name, index, None, None, None) for index, name in enumerate(("a", "b", "base")))
    changes: dict[str, Any] = {"inputs": _INPUTS, "outputs": _OUTPUTS, "tasks": tasks, "modules": {}}
    manifest = tiny_manifest(**changes, operators=None, vocab_size=100, max_length=9)
    with BundleWriter(folder) as writer:
        onnx.save(onnx.parser.parse_model(_TOWERS), writer.folder / "model.onnx")
        return writer.finish(manifest)


def test_texts_and_images_need_not_be_as_many(tmp_path: Path) -> None:
    session = Session(_towers(tmp_path / "towers"))
    ids, pixels = np.array([[1, 2], [3, 4], [5, 6]]), np.array([[1, 1], [2, 3]], np.float32)
    outputs = session.run({"input_ids": ids, "pixel_values": pixels}, task="b")
    images = (pixels * [2, 20]).sum(1)
    np.testing.assert_allclose(outputs["logits_per_image"], np.outer(images, ids.sum(1)))
    assert outputs.tasks == ("b",)
    by_id = session.run({"input_ids": ids, "pixel_values": pixels, "task_id": np.array([2])})
    np.testing.assert_allclose(by_id["logits_per_image"], np.outer((pixels * [3, 30]).sum(1), ids.sum(1)))


def test_such_a_request_has_one_task(tmp_path: Path) -> None:
    session = Session(_towers(tmp_path / "towers"))
    inputs = {"input_ids": np.array([[1], [2]]), "pixel_values": np.ones((2, 2), np.float32)}
    with pytest.raises(RequestError, match="2 tasks; this bundle takes one, for all texts and images of a request"):
        session.run(inputs, task=["a", "b"])
    with pytest.raises(RequestError, match=r"task_id has shape \[2\]"):
        session.run({**inputs, "task_id": np.array([0, 1])})


def test_such_requests_are_not_batched(tmp_path: Path) -> None:
    collator = Collator(_towers(tmp_path / "towers").manifest)
    arrays = {"input_ids": np.ones((3, 2), np.int64), "pixel_values": np.ones((2, 2), np.float32)}
    assert collator.batch_key(arrays) is None
    outputs = Session(tmp_path / "towers").run(arrays, task="a")
    (alone,) = collator.split(outputs, [arrays])
    assert alone["logits_per_image"].shape == (2, 3)


def test_a_server_takes_them(tmp_path: Path) -> None:
    bundle = _towers(tmp_path / "towers")
    ids = {"name": "input_ids", "datatype": "INT64", "shape": [3, 1], "data": [1, 2, 3]}
    pixels = {"name": "pixel_values", "datatype": "FP32", "shape": [2, 2], "data": [1, 1, 2, 3]}
    with serving(tmp_path, bundle.path) as server:
        status, answer = server.infer({"inputs": [ids, pixels], "parameters": {"task": "b"}}, "towers")
        assert status == 200, answer
        found = {output["name"]: output for output in answer["outputs"]}
        assert found["logits_per_image"]["shape"] == [2, 3]
        np.testing.assert_allclose(found["logits_per_image"]["data"], [22, 44, 66, 64, 128, 192])
        status, answer = server.infer({"inputs": [ids, pixels], "parameters": {"tasks": ["a", "b", "a"]}}, "towers")
        assert status == 400
        assert "3 tasks; this bundle takes one" in answer["error"]


def test_a_recording_without_a_mask_is_read_whole() -> None:
    specs = (
        TensorSpec("input_values", "float32", ("batch", "samples")),
        TensorSpec("attention_mask", "int64", ("batch", "samples")),
        TensorSpec("task_id", "int64", ("batch",)),
    )
    manifest = tiny_manifest(inputs=specs, vocab_size=None, max_length=None)
    arrays = check_inputs({"input_values": np.zeros((2, 50), np.float32)}, manifest)
    assert arrays["attention_mask"].shape == (2, 50) and arrays["attention_mask"].all()


def test_choices_are_no_rows() -> None:
    shape = ("batch", "choices", "length")
    specs = (
        *(TensorSpec(name, "int64", shape) for name in ("input_ids", "attention_mask")),
        tiny_manifest().inputs[-1],
    )
    manifest = tiny_manifest(inputs=specs)
    arrays = check_inputs({"input_ids": np.ones((2, 3, 5), np.int64)}, manifest)
    assert arrays["attention_mask"].shape == (2, 3, 5)
    assert row_length(arrays) == 15
    assert not Collator(manifest).pads
