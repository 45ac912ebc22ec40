"""LoRA's settings: each one of PEFT's is known; what is refused says what to do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoraConfig
from safetensors.numpy import load_file, save_file

from eptx.errors import AdapterError, EptxError, NotSupportedError
from eptx.exporter.methods.lora.settings import _KNOWN, _REFUSED, check
from eptx.exporter.methods.read import read_adapter

MODULE = "base_model.model.layer.query"
DEFAULT: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def adapter(folder: Path, config: dict[str, Any], more: dict[str, np.ndarray] | None = None, **names: str) -> Path:
    """An adapter of one linear [6, 4]; `names` are other names for its tensors."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(DEFAULT | config))
    tensors = {"lora_A.weight": np.ones((2, 4), np.float32), "lora_B.weight": np.ones((6, 2), np.float32)}
    named = {f"{MODULE}.{names.get(key[5], key)}": array for key, array in tensors.items()} | (more or {})
    save_file(named, folder / "adapter_model.safetensors")
    return folder


def test_every_setting_of_peft_is_known() -> None:
    """A new PEFT has new settings: somebody must say what each of them means here."""
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert fields - _KNOWN - _REFUSED.keys() == set()


def test_the_defaults_of_peft_pass(tmp_path: Path) -> None:
    LoraConfig(target_modules=["query"]).save_pretrained(tmp_path)
    check(json.loads((tmp_path / "adapter_config.json").read_text()), "folder")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"alora_invocation_tokens": [5]}, "aLoRA acts on the tokens after its invocation only"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "save a base folder with these layers written out"),
        ({"use_qalora": True}, "train a plain LoRA on the base as it was"),
        ({"arrow_config": {"top_k": 2}}, "export each of them as a task"),
        ({"init_lora_weights": "pissa_niter_16"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "corda"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "lora_ga"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "loftq"}, "save the base that was trained on as a folder"),
        ({"init_lora_weights": "olora", "fan_in_fan_out": True}, "Conv1D"),
        ({"init_lora_weights": "of_tomorrow"}, "update eptx"),
        ({"setting_of_tomorrow": {"strength": 2}}, "update eptx"),
    ],
)
def test_refused_by_name(config: dict[str, Any], words: str, tmp_path: Path) -> None:
    key = next(iter(config))
    with pytest.raises(NotSupportedError) as caught:
        read_adapter([adapter(tmp_path / "mine", config)])
    message = str(caught.value)
    assert message.startswith(f"mine/adapter_config.json: {key}=") and words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("tensor", "title"),
    [
        ("lora_route.weight", "HydraLoRA or LoRAMoE"),
        ("lora_AB.weight", "MoSLoRA"),
        ("lora_expert_score_weight", "AdaMix"),
        ("lora_scaling", "MultiLoRA"),
        ("lora_gate.0.weight", "MoRE"),
        ("lora_gate.GateL.weight", "MOELoRA"),
        ("lora_lambdas", "MTL-LoRA"),
    ],
)
def test_what_released_codes_save_by_the_name_of_lora(tensor: str, title: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "mine", {}, {f"{MODULE}.{tensor}": np.ones((2, 2), np.float32)})
    with pytest.raises(AdapterError) as caught:
        read_adapter([folder])
    assert str(caught.value) == (
        f"mine/adapter_model.safetensors: is as the released code of {title} saves it: rewrite the folder with eptx "
        "convert"
    )


def test_a_setting_of_tomorrow_that_is_off_passes(tmp_path: Path) -> None:
    off = {"of_tomorrow": False, "also": None, "lists": [], "configs": {}}
    assert read_adapter([adapter(tmp_path / "mine", off)]).module_names == ("layer.query",)


@pytest.mark.parametrize(
    ("config", "more", "names", "words"),
    [
        ({}, {}, {"A": "lora_A.default.weight"}, "has the adapter's name 'default' in it"),
        ({"use_dora": True}, {}, {}, "lora_magnitude_vector is missing"),
        ({"lora_bias": True}, {}, {}, "lora_B.bias is missing"),
        ({"kasa_config": {"beta": 0.1}}, {}, {}, "lora_diag is missing"),
        ({"lora_bias": True, "use_dora": True}, {}, {}, "lora_bias and use_dora are both true"),
        ({"use_dora": True}, {f"{MODULE}.lora_magnitude_vector": np.ones(5, np.float32)}, {}, "has 5 entries, not 6"),
        ({}, {f"{MODULE}.lora_B.bias": np.ones(6, np.float32)}, {}, "unexpected tensors of layer.query: lora_B.bias"),
        ({"use_bdlora": {"target_modules_bd_a": ["query"], "nblocks": 3}}, {}, {}, "not 3 blocks"),
        ({"use_bdlora": 7}, {}, {}, "must have nblocks and lists of names"),
    ],
)
def test_tensors_that_the_settings_contradict(
    config: dict[str, Any], more: dict[str, np.ndarray], names: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError) as caught:
        read_adapter([adapter(tmp_path / "mine", config, more, **names)])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_dora_reads_the_magnitude_under_both_names(tmp_path: Path) -> None:
    """PEFT loads both: the one that it writes, and that of its parameter."""
    vector = np.arange(6, dtype=np.float32)
    for index, name in enumerate(("lora_magnitude_vector", "lora_magnitude_vector.weight")):
        folder = adapter(tmp_path / str(index), {"use_dora": True}, {f"{MODULE}.{name}": vector})
        read: Any = read_adapter([folder])
        assert np.array_equal(read.by_task["task0"]["layer.query"].magnitude, vector)


def test_biases_of_a_module_saved_whole_are_read_once(tmp_path: Path) -> None:
    """With bias="all" PEFT writes them three times, and the base's among them."""
    own, bases = np.full(3, 2, np.float32), np.zeros(3, np.float32)
    head = {
        "weight": np.ones((3, 6), np.float32),
        "bias": own,
        "modules_to_save.bias": own,
        "original_module.bias": bases,
    }
    more = {f"base_model.model.classifier.{name}": array for name, array in head.items()}
    more[f"{MODULE}.base_layer.bias"] = np.ones(6, np.float32)
    read = read_adapter([adapter(tmp_path / "mine", {"bias": "all"}, more)])
    assert set(read.changes["task0"]) == {"classifier.weight", "classifier.bias", "layer.query.bias"}
    assert np.array_equal(read.changes["task0"]["classifier.bias"].apply(None), own)


def test_a_folder_that_is_refused_is_read_by_nobody(tmp_path: Path) -> None:
    """The same file without the setting is an adapter: what is refused is the setting alone."""
    folder = adapter(tmp_path / "mine", {"alora_invocation_tokens": [5]})
    with pytest.raises(EptxError):
        read_adapter([folder])
    (folder / "adapter_config.json").write_text(json.dumps(DEFAULT))
    assert read_adapter([folder]).module_names == ("layer.query",)
    assert len(load_file(folder / "adapter_model.safetensors")) == 2
