"""The trained model on the released codes' own outputs, on what their scripts and `get_peft_model` save."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eptx.errors import RequestError, UsageError
from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.trained import Output, Trained
from tests.support.trained import by_task, more_kernels, trained_model

GOLDEN = Path(__file__).parents[2] / "golden"
EPT = (
    "ept_bert48",
    "ept_bert_ksbig",
    "ept_bert_patterns",
    "ept_bert_seqcls",
    "ept_llama64",
    "ept_llama_modules",
    "ept_t5_ks16",
)
DEBERTA = ("tucka_deberta64", "tucka_glue", "tucka_glue_folded")
TUCKA = ("tucka_bert48", "tucka_llama64", "tucka_vit_cifar_cls")
CLASSES = {
    "ept_bert48": "BertForSequenceClassification",
    "ept_bert_ksbig": "BertForSequenceClassification",
    "ept_bert_patterns": "BertForSequenceClassification",
    "ept_bert_seqcls": "BertForSequenceClassification",
    "ept_llama64": "LlamaForCausalLM",
    "ept_llama_modules": "LlamaForCausalLM",
    "ept_t5_ks16": "T5ForConditionalGeneration",
    "tucka_deberta64": "DebertaV2ForSequenceClassification",
    "tucka_glue": "DebertaV2ForSequenceClassification",
    "tucka_glue_folded": "DebertaV2ForSequenceClassification",
    "tucka_bert48": "BertForSequenceClassification",
    "tucka_llama64": "LlamaForCausalLM",
    "tucka_vit_cifar_cls": "ViTForImageClassification",
}
Arrays = dict[str, Any]


def golden(case: str, **how: Any) -> tuple[Arrays, Trained]:
    """The case's arrays, and its model."""
    folder = GOLDEN / case
    top_k = json.loads((folder / "case.json").read_text()).get("top_k")
    with np.load(folder / "golden.npz") as arrays:
        return dict(arrays), trained_model(folder / "base", [folder / "adapter"], top_k=top_k, **how)


def inputs_of(arrays: Arrays) -> list[Arrays]:
    count = len({key.split(".")[0] for key in arrays if key.startswith("in")})
    return [
        {key.partition(".")[2]: array for key, array in arrays.items() if key.startswith(f"in{index}.")}
        for index in range(count)
    ]


def rows_of(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))


def close(got: np.ndarray, want: np.ndarray) -> bool:
    return got.shape == want.shape and bool(np.abs(got - want).max() <= 2e-5 * max(1.0, np.abs(want).max()))


def hidden(output: Output) -> np.ndarray:
    return output.outputs.get("last_hidden_state", output.inner.get("last_hidden_state"))


@pytest.mark.parametrize("case", EPT)
def test_ept(case: str) -> None:
    arrays, trained = golden(case)
    assert type(trained.model).__name__ == CLASSES[case]
    assert len(trained.tasks) == 8
    for index, inputs in enumerate(inputs_of(arrays)):
        rows = rows_of(inputs)
        for task in range(8):
            output = trained.run(inputs, [task] * rows)
            assert close(output.outputs["logits"], arrays[f"out{index}.task{task}.logits"])
            assert set(output.modules) == set(trained.module_names)
            if "last_hidden_state" in output.inner:
                assert close(hidden(output), arrays[f"out{index}.task{task}.hidden"])
        mixed = trained.run(inputs, list(range(rows)))
        for row in range(rows):
            assert close(mixed.outputs["logits"][row], arrays[f"out{index}.task{row}.logits"][row])
        assert not close(mixed.outputs["logits"], arrays[f"base{index}.logits"])


def test_kernels_past_the_gate(tmp_path: Path) -> None:
    """The released code saves every kernel that it was given, and its gate chooses among eight."""
    folder = GOLDEN / "ept_bert48"
    trained = trained_model(folder / "base", [more_kernels(folder / "adapter", tmp_path / "adapter")], top_k=2)
    with np.load(folder / "golden.npz") as arrays:
        inputs = inputs_of(dict(arrays))[0]
        output = trained.run(inputs, [3] * rows_of(inputs))
        assert close(output.outputs["logits"], arrays["out0.task3.logits"])


@pytest.mark.parametrize("case", ["ept_bert48", "ept_bert_ksbig", "ept_bert_patterns", "ept_llama64", "ept_t5_ks16"])
def test_off_is_the_base(case: str) -> None:
    """Of adapters that bring no module of their own."""
    arrays, trained = golden(case)
    for index, inputs in enumerate(inputs_of(arrays)):
        assert close(trained.run(inputs, [8] * rows_of(inputs)).outputs["logits"], arrays[f"base{index}.logits"])


@pytest.mark.parametrize("case", TUCKA)
def test_tucka(case: str) -> None:
    arrays, trained = golden(case)
    assert type(trained.model).__name__ == CLASSES[case]
    for index, inputs in enumerate(inputs_of(arrays)):
        rows = rows_of(inputs)
        live = trained.run(inputs, [0] * rows)
        assert close(live.outputs["logits"], arrays[f"out{index}.logits"])
        group = int(arrays[f"out{index}.group"])
        assert live.group is not None and live.weights is not None and live.group.tolist() == [group]
        assert np.abs(live.weights[0] - arrays[f"out{index}.weights"]).max() < 1e-6
        assert {module: int(chosen[0]) for module, chosen in live.groups.items()} == dict.fromkeys(
            trained.module_names, group
        )
        forced = trained.run(inputs, [0] * rows, route=Route(group, tuple(live.weights[0].tolist())))
        assert np.array_equal(forced.outputs["logits"], live.outputs["logits"])
        assert close(trained.run(inputs, [1] * rows).outputs["logits"], arrays[f"base{index}.logits"])
        each = trained.run(inputs, [0] * rows, routing="row")
        assert each.group is not None and len(each.group) == rows


@pytest.mark.parametrize("case", DEBERTA)
def test_tucka_on_deberta_routes_twice(case: str) -> None:
    """Layer 0's projections of the text by a route of it, all that runs later by a route of the positions."""
    arrays, trained = golden(case)
    assert type(trained.model).__name__ == CLASSES[case]
    state: Any = trained.hosts[0].state
    later = set()
    for index, inputs in enumerate(inputs_of(arrays)):
        output = trained.run(inputs, [0] * rows_of(inputs))
        assert close(output.outputs["logits"], arrays[f"out{index}.logits"])
        first, last = state.taken
        group = int(arrays[f"out{index}.group"])
        later.add((group, *arrays[f"out{index}.weights"].round(6).tolist()))
        assert int(last.group) == group
        assert np.abs(last.weights[0].numpy() - arrays[f"out{index}.weights"]).max() < 1e-6
        assert output.group is not None and output.weights is not None
        if f"out{index}.first_group" in arrays:
            assert output.group.tolist() == [int(arrays[f"out{index}.first_group"])]
            assert np.abs(output.weights[0] - arrays[f"out{index}.first_weights"]).max() < 1e-6
        of_text = [m for m in trained.module_names if ".layer.0.attention.self." in m]
        assert {m: int(g[0]) for m, g in output.groups.items()} == {
            m: int(first.group if m in of_text else last.group) for m in trained.module_names
        }
    assert len(later) == 1  # the positions are the same whatever the text is


@pytest.mark.parametrize("case", ["tucka_deberta64", "tucka_glue_folded"])
def test_one_route_for_all_is_not_what_was_trained(case: str) -> None:
    arrays, trained = golden(case)
    inputs = inputs_of(arrays)[0]
    live = trained.run(inputs, [0] * rows_of(inputs))
    assert live.group is not None and live.weights is not None
    route = Route(int(live.group[0]), tuple(live.weights[0].tolist()))
    one = trained.run(inputs, [0] * rows_of(inputs), route=route)
    assert np.abs(one.outputs["logits"] - arrays["out0.logits"]).max() > 1e-4


def test_float32_is_the_same_model() -> None:
    arrays, single = golden("ept_bert48", dtype=torch.float32)
    output = single.run(inputs_of(arrays)[0], [2, 2, 2])
    assert output.outputs["logits"].dtype == np.float32
    assert close(output.outputs["logits"], arrays["out0.task2.logits"])


def test_inference_follows_the_sum_of_similarities() -> None:
    arrays, trained = golden("ept_bert48")
    inputs = inputs_of(arrays)[0]
    output = trained.run(inputs, [-1, 3, -1])
    assert output.task_margin is not None
    assert output.task[1] == 3
    assert (output.task_margin >= 0).all()
    apart = by_task(trained, inputs, [-1, 3, -1])
    assert apart.task.tolist() == output.task.tolist()
    assert close(apart.outputs["logits"], output.outputs["logits"])


def test_task_ids_are_checked() -> None:
    arrays, trained = golden("ept_bert48")
    for ids in ([], [0, 0, 9], [-2, 0, 0]):
        with pytest.raises(RequestError, match="task ids"):
            trained.run(inputs_of(arrays)[0], ids)
    arrays, trained = golden("tucka_bert48")
    with pytest.raises(RequestError, match="a forward each"):
        trained.run(inputs_of(arrays)[0], [0, 1, 0])


def test_top_k_is_asked_for() -> None:
    with pytest.raises(UsageError, match="--top-k"):
        trained_model(GOLDEN / "ept_bert48" / "base", [GOLDEN / "ept_bert48" / "adapter"])
