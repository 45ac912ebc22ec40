"""The reference on the released code's outputs, and on bases whose modules have been renamed since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from eptx.errors import BaseModelError, RequestError
from eptx.exporter.adapter import TaskHeads
from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from eptx.exporter.methods.lora.adapter import LoraAdapter, LoraModule
from eptx.exporter.methods.tucka.adapter import TuckaAdapter, TuckaModule
from eptx.exporter.read import read_adapter
from eptx.exporter.reference import build_reference
from eptx.exporter.route import Route
from eptx.exporter.training import add_adapter

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(case: str) -> tuple[Any, Any, Any]:
    """The golden case's arrays, its reference in float64, its adapter."""
    folder = GOLDEN / case
    top_k = json.loads((folder / "case.json").read_text()).get("top_k")
    adapter = read_adapter([folder / "adapter"], top_k=top_k, tasks=None)
    return np.load(folder / "golden.npz"), build_reference(folder / "base", adapter), adapter


def inputs_of(arrays: Any, i: int) -> dict[str, np.ndarray]:
    return {key: arrays[f"in{i}.{key}"] for key in ("input_ids", "attention_mask")}


def close(got: np.ndarray, want: np.ndarray) -> bool:
    return bool(np.abs(got - want).max() <= 2e-5 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("case", ["ept_bert48", "ept_llama64"])
def test_ept_golden(case: str) -> None:
    arrays, reference, adapter = golden(case)
    inputs = inputs_of(arrays, 0)
    rows = len(inputs["input_ids"])
    for task in range(8):
        output = reference.run(inputs, [task] * rows)
        assert close(output.outputs["logits"], arrays[f"out0.task{task}.logits"])
        assert set(output.modules) == set(adapter.module_names)
    mixed = reference.run(inputs, list(range(rows)))
    for row in range(rows):
        assert close(mixed.outputs["logits"][row], arrays[f"out0.task{row}.logits"][row])
    assert close(reference.run(inputs, [8] * rows).outputs["logits"], arrays["base0.logits"])


@pytest.mark.parametrize("case", ["tucka_bert48", "tucka_llama64"])
def test_tucka_golden(case: str) -> None:
    arrays, reference, _ = golden(case)
    for i in range(6):
        inputs = inputs_of(arrays, i)
        live = reference.run(inputs)
        assert close(live.outputs["logits"], arrays[f"out{i}.logits"])
        assert live.group.tolist() == [int(arrays[f"out{i}.group"])]
        assert np.abs(live.weights[0] - arrays[f"out{i}.weights"]).max() < 1e-6
        route = Route(int(live.group[0]), tuple(live.weights[0].tolist()))
        forced = reference.run(inputs, route=route)
        assert np.array_equal(forced.outputs["logits"], live.outputs["logits"])
        rows = len(inputs["input_ids"])
        assert close(reference.run(inputs, [1] * rows).outputs["logits"], arrays[f"base{i}.logits"])
        assert len(reference.run(inputs, routing="row").group) == rows


def test_float32_is_the_same_model() -> None:
    arrays, _, adapter = golden("ept_bert48")
    single = build_reference(GOLDEN / "ept_bert48" / "base", adapter, dtype=torch.float32)
    output = single.run(inputs_of(arrays, 0), [2, 2, 2])
    assert output.outputs["logits"].dtype == np.float32
    assert close(output.outputs["logits"], arrays["out0.task2.logits"])


def test_inference_follows_the_sum_of_similarities() -> None:
    arrays, reference, _ = golden("ept_bert48")
    output = reference.run(inputs_of(arrays, 0), [-1, 3, -1])
    assert output.task is not None and output.task_margin is not None
    assert output.task[1] == 3
    assert (output.task_margin >= 0).all()


def test_task_ids_are_checked() -> None:
    arrays, reference, _ = golden("ept_bert48")
    for ids in (None, [0], [0, 0, 9], [-2, 0, 0]):
        with pytest.raises(RequestError):
            reference.run(inputs_of(arrays, 0), ids)


def bert(folder: Path) -> tuple[BertModel, dict[str, np.ndarray]]:
    """A tiny BERT saved to a folder, and inputs for it."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=18,
        max_position_embeddings=16,
    )  # fmt: skip
    model = BertModel(config).eval()
    model.save_pretrained(folder)
    ids = np.arange(12, dtype=np.int64).reshape(3, 4)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], np.int64)
    return model, {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("pooling", ["pooler", "first", "mean"])
def test_heads_read_the_pooled_vector_of_their_row(tmp_path: Path, pooling: Any) -> None:
    _, inputs = bert(tmp_path)
    rng = np.random.default_rng(0)
    heads = TaskHeads(
        {"a": rng.normal(size=(2, 12)), "b": rng.normal(size=(3, 12))},
        {"a": np.ones(2), "b": np.zeros(3)},
        pooling,
    )
    name = "encoder.layer.0.output.dense"
    modules = {name: LoraModule(rng.normal(size=(2, 18)), rng.normal(size=(12, 2)), 0.5)}
    adapter = LoraAdapter(tasks=("a", "b"), heads=heads, fingerprint="", by_task={"a": modules, "b": {}})
    output = build_reference(tmp_path, adapter).run(inputs, [0, 1, 2])
    hidden, mask = output.outputs["last_hidden_state"], inputs["attention_mask"]
    pooled = {
        "pooler": output.outputs["pooler_output"],
        "first": hidden[:, 0],
        "mean": np.stack([row[: m.sum()].mean(0) for row, m in zip(hidden, mask, strict=True)]),
    }[pooling]
    logits = output.outputs["logits"]
    assert logits.shape == (3, 3)
    assert np.allclose(logits[0, :2], heads.weights["a"] @ pooled[0] + 1)
    assert np.allclose(logits[1], heads.weights["b"] @ pooled[1])
    assert not logits[0, 2] and not logits[2].any()


@pytest.mark.parametrize("dora", [False, True])
def test_lora_equals_peft(tmp_path: Path, dora: bool) -> None:
    model, inputs = bert(tmp_path)
    names = ["encoder.layer.0.attention.self.query", "encoder.layer.0.intermediate.dense"]
    torch.manual_seed(1)
    config = LoraConfig(r=3, lora_alpha=7, target_modules=names, init_lora_weights=False, use_dora=dora)
    tuned = add_adapter(model, config).eval()
    modules = {}
    for name in names:
        layer: Any = tuned.base_model.model.get_submodule(name)
        if dora:
            layer.lora_magnitude_vector["default"].weight.data.mul_(1.3)
        magnitude = layer.lora_magnitude_vector["default"].weight.detach().numpy() if dora else None
        factors = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
        modules[name] = LoraModule(*(f.detach().numpy() for f in factors), 7 / 3, magnitude)
    adapter = LoraAdapter(tasks=("a", "b"), heads=None, fingerprint="", by_task={"a": {}, "b": modules})
    reference = build_reference(tmp_path, adapter)
    tensors = {key: torch.from_numpy(value) for key, value in inputs.items()}
    with torch.no_grad():
        want = tuned.double()(**tensors).last_hidden_state.numpy()
        with tuned.disable_adapter():
            base = tuned(**tensors).last_hidden_state.numpy()
    got = reference.run(inputs, [1, 0, 2]).outputs["last_hidden_state"]
    assert np.allclose(got[0], want[0], atol=1e-6)
    assert np.allclose(got[1:], base[1:], atol=1e-12)
    assert not np.allclose(want[0], base[0], atol=1e-3)


def ept_module(width: int, out: int, seed: int) -> EptModule:
    rng = np.random.default_rng(seed)
    sizes = (2, 3)
    return EptModule(
        a=rng.normal(size=(2, width // 2)),
        b=rng.normal(size=(out // 2, 2)),
        kernels=tuple(rng.normal(size=(out // s, s)) for s in sizes),
        gate_weight=rng.normal(size=(2, width)),
        gate_bias=rng.normal(size=2),
        task_embedding=rng.normal(size=(2, width)),
        scale=0.3,
    )


def vit(folder: Path) -> None:
    """A tiny ViT, with tensor names in the file as they were before transformers renamed its modules."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=18,
        image_size=8, patch_size=4, num_channels=1,
    )  # fmt: skip
    ViTModel(config).save_pretrained(folder)


def test_modules_renamed_by_transformers_are_found_by_content(tmp_path: Path) -> None:
    vit(tmp_path)
    old = "vit.encoder.layer.0.attention.attention"
    adapter = EptAdapter(
        tasks=("a", "b"), heads=None, fingerprint="", top_k=1,
        modules={f"{old}.query": ept_module(12, 12, 0), f"{old}.value": ept_module(12, 12, 1)},
    )  # fmt: skip
    reference = build_reference(tmp_path, adapter, headless=True)
    pixels = np.random.default_rng(0).normal(size=(2, 1, 8, 8))
    output = reference.run({"pixel_values": pixels}, [0, 2])
    assert output.modules[f"{old}.query"].shape == (2, 5, 12)
    off = reference.run({"pixel_values": pixels}, [2, 2])
    assert np.allclose(output.outputs["last_hidden_state"][1], off.outputs["last_hidden_state"][1])
    assert not np.allclose(output.outputs["last_hidden_state"][0], off.outputs["last_hidden_state"][0])


def test_the_route_is_that_of_its_own_forward(tmp_path: Path) -> None:
    """ViT runs key and value before query, the router."""
    vit(tmp_path)
    rng = np.random.default_rng(0)
    old = "encoder.layer.0.attention.attention"
    modules = {
        f"{old}.{name}": TuckaModule(rng.normal(size=(12, 3)), rng.normal(size=(3, 2, 3, 3)), rng.normal(size=(2, 2)))
        for name in ("query", "key", "value")
    }
    adapter = TuckaAdapter(
        tasks=("task0",), heads=None, fingerprint="", modules=modules, alpha=40.0, router=f"{old}.query",
        centroids=rng.normal(size=(6, 12)),
    )  # fmt: skip
    reference = build_reference(tmp_path, adapter, headless=True)
    images = [{"pixel_values": rng.normal(size=(1, 1, 8, 8)) * 3} for _ in range(6)]
    fresh = [build_reference(tmp_path, adapter, headless=True).run(image) for image in images]
    again = [reference.run(image) for image in images]
    for one, two in zip(fresh, again, strict=True):
        assert np.array_equal(one.outputs["last_hidden_state"], two.outputs["last_hidden_state"])
    assert len({int(output.group[0]) for output in again if output.group is not None}) > 1


def test_a_base_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    bert(tmp_path)
    for name, width in (("encoder.layer.0.attention.self.query", 14), ("encoder.layer.7.output.dense", 12)):
        adapter = EptAdapter(
            tasks=("a", "b"), heads=None, fingerprint="", top_k=1, modules={name: ept_module(width, 12, 0)}
        )
        with pytest.raises(BaseModelError, match=name.replace(".", r"\.")):
            build_reference(tmp_path, adapter, headless=True)
