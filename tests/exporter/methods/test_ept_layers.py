"""The EPT tuner against the released code's outputs, and against what its modes promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model, set_peft_model_state_dict
from peft.utils import PeftType
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from eptx.exporter.methods.ept.config import EptConfig
from eptx.exporter.methods.ept.layer import EptLinear, EptState
from eptx.exporter.methods.ept.model import EptModel
from eptx.exporter.methods.peft_types import peft_type, register

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = ["ept_bert48", "ept_llama64"]


def released_model(case: str) -> Any:
    """The golden base with the golden adapter in the tuner."""
    folder = GOLDEN / case
    settings = json.loads((folder / "case.json").read_text())
    auto = AutoModelForSequenceClassification if "bert" in case else AutoModelForCausalLM
    config = EptConfig(
        r=settings["r"],
        lora_alpha=settings["lora_alpha"],
        use_rslora=settings["use_rslora"],
        kernel_sizes=settings["expert_kernel_sizes"],
        top_k=settings["top_k"],
        target_modules=settings["target_modules"],
        tasks=[f"task{i}" for i in range(8)],
    )
    model = get_peft_model(auto.from_pretrained(folder / "base"), config)
    loaded = set_peft_model_state_dict(model, load_file(folder / "adapter" / "adapter_model.safetensors"))
    assert not loaded.unexpected_keys
    assert not [key for key in loaded.missing_keys if ".lora_" in key]
    return model.eval()


@pytest.mark.parametrize("case", CASES)
def test_forward_equals_the_released_code(case: str) -> None:
    model = released_model(case)
    golden = np.load(GOLDEN / case / "golden.npz")
    cases = sorted({name.partition(".")[0].removeprefix("in") for name in golden.files if name.startswith("in")})
    for i in cases:
        inputs = {k: torch.from_numpy(golden[f"in{i}.{k}"]) for k in ("input_ids", "attention_mask")}
        for task in range(9):
            expected = f"out{i}.task{task}" if task < 8 else f"base{i}"
            model.base_model.set_tasks([task] * len(inputs["input_ids"]))
            with torch.no_grad():
                output = model(**inputs, output_hidden_states=True)
            for name, value in (("logits", output.logits), ("hidden", output.hidden_states[-1])):
                want = golden[f"{expected}.{name}"]
                assert np.abs(value.numpy() - want).max() <= 2e-5 * max(1, np.abs(want).max())


def test_mixed_rows_equal_single_rows() -> None:
    model = released_model("ept_bert48").double()
    golden = np.load(GOLDEN / "ept_bert48" / "golden.npz")
    inputs = {k: torch.from_numpy(golden[f"in0.{k}"]) for k in ("input_ids", "attention_mask")}
    tuner = model.base_model
    tasks = [3, 8, 6]
    with torch.no_grad():
        tuner.set_tasks(tasks)
        mixed = model(**inputs).logits
        for row, task in enumerate(tasks):
            tuner.set_tasks([task] * 3)
            assert torch.allclose(model(**inputs).logits[row], mixed[row], atol=1e-13, rtol=0)


def layer(sizes: list[int], width: int, out: int, *, top_k: int = 2, tasks: int = 3) -> EptLinear:
    torch.manual_seed(0)
    config = EptConfig(r=5, tasks=[f"t{i}" for i in range(tasks)], kernel_sizes=sizes, top_k=top_k)
    return EptLinear(nn.Linear(width, out), "default", "m", EptState(tasks), config).double()


@pytest.mark.parametrize("sizes", [[2, 3, 5, 4], [2, 2], [7, 3, 2]])
@pytest.mark.parametrize(("width", "out"), [(16, 24), (23, 31), (9, 8)])
@pytest.mark.parametrize("shape", [(5, 4), (5,), (5, 2, 3)])
def test_training_computes_the_same_function(sizes: list[int], width: int, out: int, shape: tuple[int, ...]) -> None:
    ept = layer(sizes, width, out)
    ept.state.set([0, 2, 1, 3, 0])
    x = torch.randn(*shape, width, dtype=torch.float64)
    evaluated = ept.eval()(x)
    assert torch.allclose(ept.train()(x), evaluated, atol=1e-13, rtol=0)
    assert torch.equal(evaluated[3], ept.base_layer(x)[3])
    assert not torch.allclose(evaluated[0], ept.base_layer(x)[0])


def test_delta_is_the_formula_of_the_paper() -> None:
    """Every term written out: windows of A and B, an outer product with the kernel, double softmax."""
    ept = layer([2, 3, 4], 11, 13).eval()
    ept.state.set([1])
    x = torch.randn(1, 1, 11, dtype=torch.float64)
    a, b = ept.lora_A["default"].weight, ept.lora_B["default"].weight
    gate = ept.lora_gate["default"][0]
    p = torch.softmax(gate.weight @ ept.lora_task_embedding["default"].weight[1] + gate.bias, 0)
    expected = torch.zeros(13, dtype=torch.float64)
    chosen = p.argsort(descending=True)[:2]
    for weight, e in zip(torch.softmax(p[chosen], 0), chosen.tolist(), strict=True):
        size = ept.kernel_sizes["default"][e]
        z = b[: 13 // size] @ (a[:, : 11 // size] @ x[0, 0, : 11 // size])
        for c in range(13 // size):
            for j in range(size):
                expected[c * size + j] += weight * ept.lora_expert_kernels["default"][e][0, c, j, 0] * z[c]
    got = ept(x) - ept.base_layer(x)
    assert torch.allclose(got[0, 0], expected * (32 / 5), atol=1e-13, rtol=0)


def test_inferred_task_is_the_nearest_embedding() -> None:
    ept = layer([2, 3], 12, 12).eval()
    with torch.no_grad():
        ept.lora_task_embedding["default"].weight.copy_(torch.eye(12, dtype=torch.float64)[:3])
    x = torch.zeros(4, 2, 12, dtype=torch.float64)
    x[0, 0, 2] = x[1, 0, 0] = x[2, 0, 1] = x[3, 0, 1] = 3.0
    x[:, 1, 0] = 100.0
    ept.state.set([-1, -1, -1, 3], lowest=-1)
    inferred = ept(x)
    assert ept.state.inferred["m"].tolist() == [2, 0, 1, 3]
    assert ept.state.similarity is not None
    assert ept.state.similarity.argmax(1).tolist() == [2, 0, 1, 1]
    ept.state.set([2, 0, 1, 3])
    assert torch.equal(ept(x), inferred)


def test_task_loss_pulls_inputs_to_their_embedding() -> None:
    ept = layer([2, 3], 12, 12).train()
    x = torch.randn(6, 2, 12, dtype=torch.float64)
    ept.state.set([0, 1, 2, 0, 1, 3])
    ept.state.collect_loss = True
    ept(x)
    similarity = torch.nn.functional.cosine_similarity(
        x[:5, 0, None], ept.lora_task_embedding["default"].weight[None], dim=2
    )
    expected = torch.nn.functional.cross_entropy(similarity / 0.05, torch.tensor([0, 1, 2, 0, 1]))
    assert torch.allclose(ept.state.losses[0], expected)


def test_modules_may_have_sizes_and_ranks_of_their_own() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(12, 12), nn.Linear(12, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))  # type: ignore[no-any-return]

    config = EptConfig(
        target_modules=["one", "two"],
        kernel_sizes=[2, 2],
        kernel_pattern={"two": [3, 4, 6]},
        rank_pattern={"one": 3},
    )
    model = get_peft_model(Two(), config)
    assert [tuple(k.shape) for k in model.two.lora_expert_kernels["default"]] == [
        (1, 4, 3, 1),
        (1, 3, 4, 1),
        (1, 2, 6, 1),
    ]
    assert model.one.r["default"] == 3
    assert model(torch.randn(2, 12)).shape == (2, 12)


def test_tasks_must_be_set_and_in_range() -> None:
    ept = layer([2, 3], 12, 12).eval()
    with pytest.raises(ValueError, match="set the rows' tasks"):
        ept(torch.zeros(1, 1, 12, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"0\.\.3"):
        ept.state.set([4])
    with pytest.raises(ValueError, match="do not divide"):
        ept.state.set([0, 1])
        ept(torch.zeros(3, 1, 12, dtype=torch.float64))


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_sizes": [1, 2]},
        {"kernel_sizes": []},
        {"top_k": 9},
        {"r": 0},
        {"tasks": []},
        {"tasks": ["a", "a"]},
    ],
)
def test_config_refuses(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        EptConfig(**settings)


def test_registering_twice_changes_nothing() -> None:
    members = list(PeftType)
    register("ept", EptConfig, EptModel)
    assert list(PeftType) == members
    assert peft_type("EPT") is PeftType("EPT") is PeftType["EPT"]
