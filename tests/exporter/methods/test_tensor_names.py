"""Adapter files whose tensors have other names than PEFT's `save_pretrained` gives them.

They come from PEFT's own model: its `state_dict`, as training scripts save it, with what compiling and parallel
training put around it. Both readers, that of the export and that of the reference, make of them what they make of
PEFT's own file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from eptx.errors import AdapterError
from eptx.exporter.adapters.tensor_files.names import plain_names
from eptx.exporter.methods.lora.method import METHOD as LORA
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.quiet import quiet
from eptx.exporter.trained.reference import read_files

FILE = "adapter_model.safetensors"
QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A folder that PEFT saved, of DoRA and a classifier, and the same adapter in its `state_dict`."""
    folder = tmp_path_factory.mktemp("names") / "mine"
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 24, "intermediate_size": 36, "max_position_embeddings": 20}
    settings = LoraConfig(r=3, task_type="SEQ_CLS", target_modules=["query", "word_embeddings"], use_dora=True)
    with quiet():
        base = BertForSequenceClassification(BertConfig(**sizes, num_hidden_layers=1, num_attention_heads=2))
        model = get_peft_model(base, settings, adapter_name="run_1")
        model.save_pretrained(folder.parent)
    (folder.parent / "run_1").rename(folder)
    state = model.state_dict()
    return folder, {name: array for name, array in state.items() if ".lora_" in name or ".modules_to_save." in name}


def written(saved: tuple[Path, dict[str, Tensor]], to: Path, tensors: dict[str, Tensor]) -> Path:
    """The folder with other tensors."""
    folder = shutil.copytree(saved[0], to / "mine")
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, folder / FILE)
    return folder


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """All that the export reads of an adapter."""
    adapter: Any = read_adapter([folder])
    found = {}
    for module, own in adapter.by_task["task0"].items():
        found |= {f"{module}.{part}": getattr(own, part) for part in ("a", "b", "magnitude")}
    for name, change in adapter.changes["task0"].items():
        parts = {part: getattr(change, part, None) for part in ("a", "b", "magnitude", "array")}
        found |= {f"{name}.{part}": array for part, array in parts.items() if array is not None}
    return found


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: name.replace("run_1", "default"),
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"model.{name}",
        lambda name: f"module._orig_mod.model.{name}",
        lambda name: name.replace("base_model.model.", "base_model.model._orig_mod.module."),
        lambda name: name.replace("layer.0.", "layer.0._fsdp_wrapped_module._checkpoint_wrapped_module."),
        lambda name: name.removeprefix("base_model.model."),
        lambda name: name.replace("base_model.model.", "module."),
        lambda name: name.replace(".run_1", "") if "modules_to_save" not in name else name,
    ],
    ids=["as is", "default", "DDP", "compiled", "Lightning", "all", "inside", "layers", "bare", "bare DDP", "some"],
)
def test_read_as_peft_saves_it(
    saved: tuple[Path, dict[str, Tensor]], rename: Callable[[str], str], tmp_path: Path
) -> None:
    folder = written(saved, tmp_path, {rename(name): tensor for name, tensor in saved[1].items()})
    wanted, found = arrays(saved[0]), arrays(folder)
    assert wanted.keys() == found.keys() and len(wanted) > 5
    assert all(np.array_equal(array, found[name]) for name, array in wanted.items())
    own, same = read_files([saved[0]])[0].tensors, read_files([folder])[0].tensors
    assert own.keys() == same.keys() and all(torch.equal(tensor, same[name]) for name, tensor in own.items())


def test_words_of_other_tensors_are_no_adapters() -> None:
    """GLoRA, PSOFT and MonteCLoRA have words where LoRA's factors may have an adapter's name."""
    names = ["q.lora_A.weight", "q.lora_monteclora_sampler.std_prior", "q.glora_A.X", "q.psoft_R.vector_a"]
    assert plain_names(names, (".lora_", ".glora_", ".psoft_"), LORA.telling, FILE) == {name: name for name in names}


def test_names_that_no_adapter_explains(saved: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    state = saved[1]
    key, other = f"{QUERY}.lora_A.run_1.weight", f"{QUERY}.lora_B.run_1.weight"
    head = "base_model.model.classifier.modules_to_save.run_1.weight"
    cases = {
        "holds several adapters, run_1, run_2: save the adapter": {f"{QUERY}.lora_A.run_2.weight": state[key]},
        "has the adapter's name 'run_1' in it, and bert.encoder": {other: None, f"{QUERY}.lora_B.weight": state[other]},
        "query.lora_A.weight appears twice, as": {f"module.{key}": state[key]},
        "classifier.weight appears twice, as": {"classifier.weight": state[head]},
    }
    for index, (words, changes) in enumerate(cases.items()):
        tensors = {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}
        with pytest.raises(AdapterError) as caught:
            read_adapter([written(saved, tmp_path / str(index), tensors)])
        assert words in str(caught.value) and "\n" not in str(caught.value)
