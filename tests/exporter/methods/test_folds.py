"""MoSLoRA, AdaMix and MultiLoRA become a plain LoRA, which gives what the layers of the released codes do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import eptx
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from tests.exporter.methods.family import SMALL, Small, tensors_of
from tests.exporter.methods.folds import KINDS, Merged, Saved
from tests.exporter.methods.released import Layer, outputs, own, replaced
from tests.matrix.cell import CALLS
from tests.matrix.row import Arrays
from tests.support.decoders import write_tokenizer


def compare(small: Small, base: Path, adapter: Path, inputs: Arrays, wanted: list[dict[str, np.ndarray]]) -> None:
    """A LoRA of one task, in both modes; and PEFT itself loads the folder."""
    key = next(iter(wanted[0]))
    assert np.abs(wanted[0][key] - wanted[1][key]).max() > 0.05
    for mode, rows in (("conditioned", (0, 1, 0, 1)), ("static", (0,) * 4)):
        out = adapter.parent / mode
        bundle = eptx.export(base, adapter, out, ExportOptions(mode=mode, tasks=["a"]))  # type: ignore[arg-type]
        asked = None if mode == "static" else [("a", "base")[row] for row in rows]
        found = CALLS[small.call](bundle, inputs, asked, [task.name for task in bundle.manifest.tasks])[key]
        for index, row in enumerate(rows):
            kept: Any = inputs["attention_mask"][index] == 1 if small.call != "encoder-decoder" else slice(None)
            want = wanted[row][key][index][kept]
            assert np.abs(found[index][kept] - want).max() <= 2e-5 * max(1, np.abs(want).max()), (mode, index)
        assert eptx.validate(out).passed, mode
        assert bundle.manifest.method == "lora"


@pytest.mark.parametrize(("kind", "layer"), [(kind, layer) for kind, layers in KINDS.items() for layer in layers])
@pytest.mark.parametrize("name", SMALL)
def test_it_becomes_a_plain_lora(name: str, kind: str, layer: type[Layer], tmp_path: Path) -> None:
    small = SMALL[name]
    base, inputs = small.write(tmp_path / "base"), small.reads(4)
    model = replaced(base, small.trained, small.targets, layer)
    Saved.write(kind, model, tmp_path / "saved")
    asked = {} if kind == "MoSLoRA" else Saved.asked
    assert eptx.convert(tmp_path / "saved", tmp_path / "adapter", asked).method == kind
    compare(small, base, tmp_path / "adapter", inputs, outputs(model, inputs, (0, None)))


def test_adamix_on_layers_of_three_in_one(tmp_path: Path) -> None:
    """PEFT's own LoRA of the converted folder gives what the released layer does."""
    base, inputs = tmp_path / "base", SMALL["llama"].reads(3)
    torch.manual_seed(4)
    with quiet():
        ends = {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
        GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=60, **ends)).save_pretrained(base)
        write_tokenizer(base, 60)
        model = GPT2LMHeadModel.from_pretrained(base).eval()
        plain = AutoModelForCausalLM.from_pretrained(base).eval()
    for block in model.transformer.h:
        block.attn.c_attn = Merged(block.attn.c_attn, model.config.n_embd)
    torch.save({"model_state_dict": own(model, "")}, tmp_path / "model.pt")
    eptx.convert(tmp_path / "model.pt", tmp_path / "adapter", Saved.asked)
    given = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with quiet(), torch.no_grad():
        want, without = tensors_of(model(**given))["logits"], tensors_of(plain(**given))["logits"]
        found = tensors_of(PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()(**given))["logits"]
    kept = inputs["attention_mask"] == 1
    assert np.abs(want - without)[kept].max() > 0.05
    assert np.abs(found - want)[kept].max() <= 2e-5 * max(1, np.abs(want).max())
    eptx.export(base, tmp_path / "adapter", tmp_path / "bundle", ExportOptions(mode="conditioned"))
    assert eptx.validate(tmp_path / "bundle").passed
