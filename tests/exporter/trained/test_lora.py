"""LoRA as PEFT's own model computes it, before it was saved: its settings, its classes, its heads, side by side."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eptx.exporter.trained import Trained
from tests.exporter.trained.models import inputs, outputs_of, peft_model, save, write_base
from tests.support.trained import trained_model

QUERY, DENSE = ["query", "value"], ["query", "intermediate.dense"]
#: what was trained -> base's class, trained class, labels, settings
CASES: dict[str, tuple[str, str, str, int | None, dict[str, Any]]] = {
    "rank_pattern": ("bert", "BertModel", "BertModel", None, {
        "target_modules": DENSE, "r": 3, "lora_alpha": 7,
        "rank_pattern": {"query": 5}, "alpha_pattern": {r"layer.1.intermediate.dense": 11},
    }),
    "rslora": ("bert", "BertModel", "BertModel", None, {"target_modules": DENSE, "r": 4, "use_rslora": True}),
    "dora": ("bert", "BertModel", "BertModel", None, {"target_modules": DENSE, "r": 3, "use_dora": True}),
    "all-linear": ("bert", "BertModel", "BertModel", None, {"target_modules": "all-linear", "r": 2}),
    "one layer": ("bert", "BertModel", "BertModel", None, {"target_modules": QUERY, "layers_to_transform": [1]}),
    "excluded": ("bert", "BertModel", "BertModel", None, {"target_modules": QUERY, "exclude_modules": r".*layer\.0.*"}),
    "SEQ_CLS": ("bert", "BertForMaskedLM", "BertForSequenceClassification", 3, {
        "target_modules": QUERY, "task_type": "SEQ_CLS", "modules_to_save": ["pooler", "classifier"],
    }),
    "SEQ_CLS of another head": ("bert", "BertForSequenceClassification", "BertForSequenceClassification", 7, {
        "target_modules": QUERY, "task_type": "SEQ_CLS",
    }),
    "TOKEN_CLS": ("bert", "BertModel", "BertForTokenClassification", 5, {
        "target_modules": QUERY, "task_type": "TOKEN_CLS",
    }),
    "QUESTION_ANS": ("bert", "BertModel", "BertForQuestionAnswering", None, {
        "target_modules": QUERY, "task_type": "QUESTION_ANS",
    }),
    "FEATURE_EXTRACTION": ("bert", "BertForSequenceClassification", "BertModel", None, {
        "target_modules": QUERY, "task_type": "FEATURE_EXTRACTION",
    }),
    "CAUSAL_LM": ("llama", "LlamaForCausalLM", "LlamaForCausalLM", None, {
        "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "modules_to_save": ["lm_head", "norm"],
    }),
    "SEQ_CLS of a decoder": ("llama", "LlamaForCausalLM", "LlamaForSequenceClassification", 4, {
        "target_modules": ["q_proj", "v_proj"], "task_type": "SEQ_CLS",
    }),
    "a classifier by auto_mapping": ("vit", "ViTModel", "ViTForImageClassification", 6, {
        "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"],
    }),
    "the bare model by auto_mapping": ("bert", "BertForSequenceClassification", "BertModel", None, {
        "target_modules": QUERY,
    }),
}  # fmt: skip
PAD = {"pad_token_id": 0}


@pytest.mark.parametrize("case", CASES)
def test_what_peft_saved_is_what_peft_computed(tmp_path: Path, case: str) -> None:
    kind, saved_as, trained_as, labels, settings = CASES[case]
    base = write_base(kind, saved_as, tmp_path / "base", **(PAD if kind == "llama" else {}))
    model = peft_model(base, trained_as, labels=labels, **settings)
    folder = save(model, tmp_path / "adapter")
    want = outputs_of(model, inputs(kind))
    trained = trained_model(base, [folder])
    assert type(trained.model).__name__ == trained_as
    got = trained.run(inputs(kind), [0, 0, 0])
    assert set(got.outputs) == set(want) - {"past_key_values"}
    for name, array in got.outputs.items():
        assert array.shape == want[name].shape
        np.testing.assert_allclose(array, want[name], rtol=0, atol=1e-9)
    _moves(trained, kind)


def _moves(trained: Trained, kind: str) -> None:
    """Every adapted module's output differs with the adapter off."""
    on, off = (trained.run(inputs(kind), [task] * 3) for task in (0, 1))
    assert set(on.modules) == set(trained.module_names)
    assert all(not np.allclose(on.modules[name], off.modules[name]) for name in on.modules)


def test_several_folders_are_tasks_side_by_side(tmp_path: Path) -> None:
    """Of different ranks, targets and heads: each computes what it computed alone."""
    base = write_base("bert", "BertForSequenceClassification", tmp_path / "base", num_labels=2)
    own: dict[str, tuple[int, dict[str, Any]]] = {
        "a": (2, {"r": 2, "target_modules": QUERY}),
        "b": (2, {"r": 5, "target_modules": DENSE}),
        "c": (4, {"r": 3, "target_modules": ["value"], "use_dora": True}),
    }
    folders, wants = [], []
    for seed, (name, (labels, settings)) in enumerate(own.items()):
        model = peft_model(base, "BertForSequenceClassification", seed, labels, task_type="SEQ_CLS", **settings)
        folders.append(save(model, tmp_path / name))
        wants.append(outputs_of(model, inputs("bert"))["logits"])
    trained = trained_model(base, folders)
    assert trained.tasks == ("a", "b", "c")
    assert len(trained.hosts) == 2  # c's head has another shape
    for _ in range(2):  # whatever was asked before
        for task, want in enumerate(wants):
            got = trained.run(inputs("bert"), [task] * 3).outputs["logits"]
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)


def test_old_module_names_are_those_of_today(tmp_path: Path) -> None:
    """transformers 5 calls ViT's query q_proj; a file of the days before, and its settings, do not."""
    base = write_base("vit", "ViTModel", tmp_path / "base")
    settings = {"target_modules": ["q_proj", "v_proj"], "r": 3, "lora_alpha": 5, "rank_pattern": {"q_proj": 2}}
    model = peft_model(base, "ViTModel", **settings)
    folder = save(model, tmp_path / "adapter")
    want = outputs_of(model, inputs("vit"))
    _as_of_old(folder)
    trained = trained_model(base, [folder])
    assert trained.module_names[0] == "encoder.layer.0.attention.attention.query"
    got = trained.run(inputs("vit"), [0] * 3).outputs
    np.testing.assert_allclose(got["last_hidden_state"], want["last_hidden_state"], rtol=0, atol=1e-9)


def _as_of_old(folder: Path) -> None:
    """Renames as transformers did, the other way round."""
    names = {"q_proj": "query", "v_proj": "value"}
    tensors = load_file(folder / "adapter_model.safetensors")
    renamed = {}
    for key, array in tensors.items():
        new = re.sub(r"layers\.(\d+)\.attention\.", r"encoder.layer.\1.attention.attention.", key)
        new = re.sub("[qv]_proj", lambda match: names[match[0]], new)
        assert new != key
        renamed[new] = array
    save_file(renamed, folder / "adapter_model.safetensors")
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config |= {"target_modules": list(names.values()), "rank_pattern": {"query": 2}}
    path.write_text(json.dumps(config))
