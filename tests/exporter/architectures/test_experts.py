"""LoRA of experts' weights (``target_parameters``), which are parameters of three axes and no modules.

What an adapter makes of them is compared with what PEFT merges; a bundle with PEFT's own forward, and validation with
wrong copies of that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import peft
import pytest
import torch
import transformers
from peft.tuners.lora.layer import ParamWrapper

from eptx.errors import AdapterError, EptxError
from eptx.exporter.methods.lora.complete import complete
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.quiet import quiet
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.exporter.validation.wrong.edits import numbers
from tests.matrix.cell import run
from tests.matrix.decoders import SMALL
from tests.matrix.made import make
from tests.matrix.row import Row, texts
from tests.support.bundles import copy_bundle

_ONE = {**SMALL, "num_hidden_layers": 1}
_QWEN = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 16}
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
#: Class -> its configuration. gpt-oss keeps its experts [in, out].
CLASSES: dict[str, dict[str, Any]] = {
    "Mixtral": _LOCAL,
    "Qwen3Moe": _QWEN,
    "GptOss": {**_LOCAL, "head_dim": 16},
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "GraniteMoe": _LOCAL,
}
#: In an adapter's settings: patterns are of a parameter's whole name.
SETTINGS: dict[str, Any] = {
    "r": 2,
    "lora_alpha": 6,
    "target_modules": ["q_proj"],
    "target_parameters": ["experts.down_proj", "experts.gate_up_proj"],
    "rank_pattern": {"experts.gate_up_proj": 3},
    "alpha_pattern": {"down_proj": 5},
}


def trained(name: str, folder: Path, **settings: Any) -> Any:
    """A base and an adapter of it on disk, and PEFT's model of both."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**_ONE, **CLASSES[name]})
    with quiet():
        model = getattr(transformers, f"{name}ForCausalLM")(config)
        model.save_pretrained(folder / "base")
        tuned = peft.get_peft_model(model, peft.LoraConfig(**{**SETTINGS, **settings}))
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))
        tuned.save_pretrained(folder / "adapter")
    return tuned


@pytest.mark.parametrize("name", CLASSES)
def test_what_peft_merges(name: str, tmp_path: Path) -> None:
    """Which factors are of which parameter, and how they are laid out."""
    tuned = trained(name, tmp_path)
    adapter = complete(read_adapter([tmp_path / "adapter"]), tmp_path / "base", f"{name}ForCausalLM")  # type: ignore[arg-type]
    assert [module.rpartition(".")[2] for module in adapter.module_names] == ["q_proj"]
    compared = 0
    for path, wrapper in tuned.get_base_model().named_modules():
        if not isinstance(wrapper, ParamWrapper):
            continue
        key = f"{path.replace('.base_layer', '')}.{wrapper.parameter_name}"
        base = wrapper.get_param().detach()
        wanted = (base + wrapper.get_delta_weight("default")).detach().numpy()
        assert np.abs(wanted - base.numpy()).max() > 1e-2
        assert np.abs(adapter.changes["task0"].pop(key).apply(base.numpy()) - wanted).max() < 1e-6  # type: ignore[attr-defined]
        compared += 1
    assert compared == 2 and not adapter.changes["task0"]


def test_a_bundle(tmp_path: Path) -> None:
    """Static: right, and validation sees one expert that is wrong. Conditioned: refused."""
    config = ("Qwen3MoeConfig", {**_ONE, **_QWEN})
    row = Row("Qwen3-MoE", "decoders", "Qwen3MoeModel", config, texts(60), adapters=1)
    kind = {"task_type": "FEATURE_EXTRACTION"}
    made = make(row, lambda row, model, index: peft.LoraConfig(**{**SETTINGS, **kind}), tmp_path / "made")
    outcome = run(row, made, "static", tmp_path / "static")
    assert outcome.right, outcome
    told = ValidateOptions(base=made.base, adapters=made.adapters)
    assert validate_bundle(tmp_path / "static", told).passed
    stacks = [name for name, shape in _shapes(tmp_path / "static").items() if len(shape) == 3 and shape[0] == 4]
    assert len(stacks) == 2
    for stack in stacks:
        copy = copy_bundle(tmp_path / "static", tmp_path / stack)
        numbers(_last_scaled, stack)(copy)
        report = validate_bundle(copy, told)
        assert [check.wrong for check in report.checks if check.wrong] == ["differs from its source in row 3 of 4"]
    refusal = run(row, made, "conditioned", tmp_path / "conditioned")
    assert (refusal.code, refusal.refusal) == (
        5,
        "task 'task0': target_parameters in its adapter_config.json names layers.0.mlp.experts.down_proj, and the "
        "rows of a batch cannot each have their own experts: export one adapter with --mode static",
    )


def _shapes(bundle: Path) -> dict[str, list[int]]:
    graph = ir.load((bundle / "model.onnx").absolute()).graph
    return {name: list(value.shape.numpy()) for name, value in graph.initializers.items() if value.shape is not None}


def _last_scaled(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array[:3], np.float32(1.001) * array[3:]])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"target_parameters": ["experts.down_proj"]}, "factors for 2 parameters of model.layers.0.mlp.experts"),
        ({"target_parameters": ["experts.none"]}, "holds none of a Qwen3MoeForCausalLM's"),
        ({"target_parameters": "experts.down_proj"}, "must be a list of names"),
        ({"rank_pattern": {}}, "experts.gate_up_proj has rank 3; adapter_config.json says 2"),
        ({"init_lora_weights": "olora"}, "is not supported with target_parameters"),
    ],
)
def test_settings_that_contradict_the_file(said: dict[str, Any], words: str, tmp_path: Path) -> None:
    trained("Qwen3Moe", tmp_path)
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | said))
    with pytest.raises(EptxError) as caught:
        complete(read_adapter([tmp_path / "adapter"]), tmp_path / "base", "Qwen3MoeForCausalLM")  # type: ignore[arg-type]
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, AdapterError) or "init_lora_weights" in said
