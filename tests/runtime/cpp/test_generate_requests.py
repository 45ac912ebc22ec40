"""Requests for text that cannot be answered are refused with one line, before ONNX Runtime sees them."""

from __future__ import annotations

import ctypes as c
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.malformed.bundles.test_bundles import relist
from tests.runtime.cpp.library import NativeError, Session, check, load
from tests.runtime.cpp.structures import GenerateOptions, Prompts
from tests.runtime.cpp.test_generate import PROMPTS, TASKS, BundleOf, bundle_of, choices  # noqa: F401
from tests.support.decoders import Steps
from tests.support.tiny_bundle import write_tiny

#: name -> prompts, tasks, options, status, message
REQUESTS: dict[str, tuple[list[list[int]], Any, dict[str, Any], int, str]] = {
    "no prompts": ([], "task0", {}, 3, "there are no prompts"),
    "an empty prompt": ([[5], []], "task0", {}, 3, "prompt 1 is empty"),
    "an unknown token": ([[5], [6, 180]], "task0", {}, 3, "token 1 of prompt 1 is 180; token ids are 0 to 179"),
    "a negative token": ([[-1]], "task0", {}, 3, "token 0 of prompt 0 is -1; token ids are 0 to 179"),
    "too long a prompt": ([[5] * 65], "task0", {}, 3, "prompt 0 has 65 tokens; with 4 new ones"),
    "too long an answer": ([[5] * 61], "task0", {}, 3, "with 4 new ones that is more than the 64 that the model reads"),
    "the longest answer": ([[5]], "task0", {"max_new_tokens": 2**31 - 1}, 3, "with 2147483647 new ones"),
    "no task": ([[5]], None, {}, 3, "name a task: task0, task1"),
    "an unknown task": ([[5]], "cola", {}, 3, "no task 'cola'; this bundle has task0"),
    "a task to infer": ([[5]], "auto", {}, 3, "no task 'auto'"),
    "too many tasks": ([[5]], TASKS, {}, 3, "8 tasks for a batch of 1; give one name, or one per row"),
    "too few tasks": (PROMPTS, TASKS[:2], {}, 3, "2 tasks for a batch of 8"),
    "ids that are left over": ([[5]], "task0", {"id_count": 2}, 3, "the lengths of the prompts are less than 2"),
    "ids that are missing": ([[5]], "task0", {"id_count": 0}, 3, "the lengths of the prompts are more than 0"),
    "no new tokens": ([[5]], "task0", {"max_new_tokens": 0}, 3, "max_new_tokens must be an integer from 1 to"),
    "fewer than none": ([[5]], "task0", {"max_new_tokens": -1}, 3, "max_new_tokens must be"),
    "too many new tokens": ([[5]], "task0", {"max_new_tokens": 2**31}, 3, "max_new_tokens must be"),
    "a cold temperature": ([[5]], "task0", {"temperature": -0.1}, 3, "temperature must be a number and not negative"),
    "an infinite temperature": ([[5]], "task0", {"temperature": float("inf")}, 3, "temperature must be a number"),
    "no temperature": ([[5]], "task0", {"temperature": float("nan")}, 3, "temperature must be a number"),
    "a negative top_k": ([[5]], "task0", {"top_k": -1}, 3, "top_k must be 0 or more, it is -1"),
    "a large top_p": ([[5]], "task0", {"top_p": 1.5}, 3, "top_p must be from 0 to 1"),
    "a negative top_p": ([[5]], "task0", {"top_p": -0.5}, 3, "top_p must be from 0 to 1"),
    "no top_p": ([[5]], "task0", {"top_p": float("nan")}, 3, "top_p must be from 0 to 1"),
}


@pytest.fixture(scope="module")
def conditioned(bundle_of: BundleOf) -> Session:  # noqa: F811
    return Session(bundle_of("conditioned").path)


@pytest.mark.parametrize("name", REQUESTS)
def test_refused(conditioned: Session, name: str) -> None:
    prompts, tasks, options, status, said = REQUESTS[name]
    with pytest.raises(NativeError) as e:
        conditioned.generate(prompts, tasks, **({"max_new_tokens": 4} | options))
    assert (e.value.status, said in str(e.value)) == (status, True), str(e.value)
    assert len(conditioned.generate([[5] * 60], "task0", max_new_tokens=4)) == 1


def test_a_token_that_the_task_lacks(bundle_of: BundleOf, tmp_path: Path) -> None:  # noqa: F811
    changed = Path(shutil.copytree(bundle_of("conditioned").path, tmp_path / "bundle"))
    manifest = json.loads((changed / "eptx.json").read_text())
    next(task for task in manifest["tasks"] if task["name"] == "base")["vocab_size"] = 100
    (changed / "eptx.json").write_text(json.dumps(manifest))
    session = Session(changed)
    with pytest.raises(NativeError) as e:
        session.generate([[5, 100], [5, 6, 100]], ["task0", "base"], max_new_tokens=2)
    assert (e.value.status, str(e.value)) == (3, "token 2 of prompt 1 is 100; task base has token ids 0 to 99")
    assert len(session.generate([[5, 100], [5, 6, 99]], ["task0", "base"], max_new_tokens=2)) == 2


def test_null_pointers(conditioned: Session) -> None:
    library, made = load(), c.c_void_p()
    prompts, options = Prompts(), GenerateOptions(max_new_tokens=1)
    places = [conditioned.value, c.byref(prompts), c.byref(options), c.byref(made)]
    for index, name in enumerate(("session", "prompts", "options", "generation")):
        arguments = [None if i == index else place for i, place in enumerate(places)]
        with pytest.raises(NativeError, match=f"{name} is NULL") as e:
            check(library, library.eptx_session_generate, *arguments)
        assert e.value.status == 2
    length = (c.c_size_t * 1)(1)
    for wrong, said in (
        (Prompts(row_count=1), "prompts.lengths is NULL"),
        (Prompts(row_count=1, lengths=length, id_count=1), "prompts.ids is NULL"),
        (Prompts(row_count=1, lengths=length, task_count=1), "prompts.tasks is NULL"),
    ):
        with pytest.raises(NativeError, match=said) as e:
            check(library, library.eptx_session_generate, conditioned.value, c.byref(wrong), *places[2:])
        assert e.value.status == 2
    options.stop_count = 1
    ids = (c.c_int64 * 1)(5)
    right = Prompts(ids=ids, id_count=1, lengths=length, row_count=1)
    with pytest.raises(NativeError, match=r"options\.stop is NULL"):
        check(library, library.eptx_session_generate, conditioned.value, c.byref(right), *places[2:])
    assert not made.value
    assert not library.eptx_generation_row(None, c.c_size_t(0))
    library.eptx_generation_free(None)


def test_a_bundle_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(NativeError, match="does not generate text: use eptx_session_run") as e:
        Session(write_tiny(tmp_path / "bundle").path).generate([[5]], "sst2", max_new_tokens=1)
    assert e.value.status == 5


def test_too_much_memory(conditioned: Session, bundle_of: BundleOf, tmp_path: Path) -> None:  # noqa: F811
    """Where the model has no maximum length, only memory limits an answer."""
    changed = Path(shutil.copytree(bundle_of("conditioned").path, tmp_path / "bundle"))
    manifest = json.loads((changed / "eptx.json").read_text())
    manifest["max_length"] = None
    (changed / "eptx.json").write_text(json.dumps(manifest))
    with pytest.raises(NativeError) as e:
        Session(changed).generate([[5]] * 40_000, "task0", max_new_tokens=2**31 - 1)
    assert (e.value.status, str(e.value)) == (6, "not enough memory")


def test_a_model_that_is_broken(bundle_of: BundleOf, tmp_path: Path) -> None:  # noqa: F811
    """Logits that are NaN give an error, not a token."""
    changed = Path(shutil.copytree(bundle_of("conditioned").path, tmp_path / "bundle"))
    model = onnx.load(changed / "model.onnx", load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["finite" if name == "logits" else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(np.nan), "nan"))
    model.graph.node.add(op_type="Add", input=["finite", "nan"], output=["logits"])
    onnx.save(model, changed / "model.onnx")
    relist(changed)
    for temperature in (0, 1):
        with pytest.raises(NativeError, match="the model's logits are not numbers") as e:
            Session(changed).generate([[5]], "task0", max_new_tokens=4, temperature=temperature)
        assert e.value.status == 3


def test_all_tokens_in_one_call(bundle_of: BundleOf) -> None:  # noqa: F811
    """A request without a cache scores whole rows."""
    for name, tasks in (("conditioned", TASKS), ("prompt", None)):
        bundle = bundle_of(name)
        ids, mask = np.zeros((8, 30), np.int64), np.zeros((8, 30), np.int64)
        for row, prompt in enumerate(PROMPTS):
            ids[row, : len(prompt)], mask[row, : len(prompt)] = prompt, 1
        wanted = Steps(bundle).prefill(PROMPTS, **choices(bundle, tasks or [], 8))
        session = Session(bundle.path)
        outputs, used = session.run({"input_ids": ids, "attention_mask": mask}, tasks)
        assert used == (tasks or ["task0"] * 8)
        np.testing.assert_allclose(outputs["logits"][mask == 1], wanted["logits"][mask == 1], atol=1e-5)
        for key in outputs.keys() & {"route_group_used", "route_weights_used"}:
            np.testing.assert_allclose(outputs[key], wanted[key], atol=1e-6)
        alone, _ = session.run({"input_ids": ids[:1, :5]}, tasks and tasks[:1])
        np.testing.assert_allclose(alone["logits"][0], outputs["logits"][0, :5], atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "status", "said"),
    [
        ({"attention_mask": [[0, 1, 1]]}, 3, "input attention_mask hides tokens of row 0 before others"),
        ({"attention_mask": [[1, 0, 1]]}, 3, "input attention_mask hides tokens of row 0 before others"),
        ({"attention_mask": [[1, 1]]}, 3, "input attention_mask has length 2; input_ids have 3"),
        ({"attention_mask": [[1] * 4]}, 3, "input attention_mask has length 4; input_ids have 3"),
        (
            {"past_key_values.0.key": np.zeros((1, 2, 1, 16), np.float32)},
            5,
            "cannot be given: use eptx_session_generate",
        ),
    ],
)
def test_refused_inputs(conditioned: Session, inputs: dict[str, Any], status: int, said: str) -> None:
    with pytest.raises(NativeError, match=said) as e:
        conditioned.run({"input_ids": np.array([[5, 6, 7]]), **{k: np.asarray(v) for k, v in inputs.items()}}, "task0")
    assert e.value.status == status
