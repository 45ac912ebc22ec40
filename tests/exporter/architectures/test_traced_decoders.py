"""Decoders that GenAI's builder does not make: what they answer, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eptx.calibration import export_bundle
from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter import ExportOptions
from eptx.exporter.bases import load_decoder, load_genai
from eptx.exporter.quiet import quiet
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.runtime import Session
from tests.exporter.validation.adapters import linear_shapes, write_lora
from tests.support.decoders import write_decoder, write_tokenizer

PROMPTS = [[5, 17, 40, 9, 22, 31], [33, 8], [61, 7, 50]]


def _write(folder: Path, config_name: str, model_name: str, **settings: Any) -> Path:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, config_name)(vocab_size=70, bos_token_id=1, eos_token_id=2, **settings)
    model = getattr(transformers, model_name)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(folder)
    write_tokenizer(folder, 70)
    return folder


def test_answers_of_ragged_prompts(tmp_path: Path) -> None:
    """GenAI goes on behind the padding. ALiBi counts distances in places of the cache and must not see it."""
    from transformers import AutoModelForCausalLM

    base = _write(tmp_path / "base", "MptConfig", "MptForCausalLM", d_model=32, n_heads=2, n_layers=1, max_seq_len=40)
    adapter = write_lora(tmp_path / "lora", linear_shapes(base, ("Wqkv", "up_proj")), seed=1)
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="conditioned"))
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval()
    got = Session(bundle.path, provider="cpu").generate(PROMPTS, "base", max_new_tokens=8)
    for prompt, answer in zip(PROMPTS, got.token_ids, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        assert list(answer) == logits.argmax(1).tolist()
    settings = ValidateOptions(base=base, adapters=[adapter], providers=["cpu"])
    report = validate_bundle(bundle.path, settings)
    assert report.passed, report.reason


@pytest.mark.parametrize("heads", [2, 4])
def test_float32_for_cuda(tmp_path: Path, heads: int) -> None:
    """There the builder (0.18) makes a graph without a cache."""
    base = write_decoder("llama", tmp_path / "base", num_key_value_heads=heads)
    adapter = write_lora(tmp_path / "lora", linear_shapes(base, ("q_proj", "v_proj", "down_proj")), seed=1)
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="conditioned", provider="cuda"))
    report = validate_bundle(bundle.path, ValidateOptions(base=base, adapters=[adapter], providers=["cpu"]))
    assert report.passed, report.reason


def test_int4_comes_from_the_builder_alone(tmp_path: Path) -> None:
    base = _write(tmp_path / "base", "BloomConfig", "BloomForCausalLM", hidden_size=16, n_layer=1, n_head=2)
    adapter = write_lora(tmp_path / "lora", linear_shapes(base, ("dense",)), seed=1)
    options = ExportOptions(mode="conditioned", precision="int4")
    with pytest.raises(NotSupportedError, match=r"know a BloomForCausalLM; int4 .* alone: use another --precision"):
        export_bundle(base, [adapter], tmp_path / "bundle", options)


def test_a_state_that_is_no_cache(tmp_path: Path) -> None:
    base = _write(tmp_path / "base", "MambaConfig", "MambaForCausalLM", hidden_size=16, num_hidden_layers=1)
    with pytest.raises(NotSupportedError, match="MambaForCausalLM does not keep keys and values of every token"):
        load_decoder(base, "MambaForCausalLM")


def test_an_answer_must_end(tmp_path: Path) -> None:
    base = write_decoder("llama", tmp_path / "base")
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((base / name).read_text())
        (base / name).write_text(json.dumps({**settings, "eos_token_id": None}))
    with pytest.raises(BaseModelError, match=r"has no eos_token_id"):
        load_decoder(base, "LlamaForCausalLM")


def test_gemma_is_scaled_by_the_root_itself(tmp_path: Path) -> None:
    """The builder (0.18) rounds 5.656854 to 5.66."""
    base = write_decoder("gemma", tmp_path / "base", hidden_size=32)
    graph = load_genai(base, tmp_path / "work").model.graph
    node = next(node for node in graph if (node.name or "").endswith("/embed_tokens/Mul"))
    scale = node.inputs[1]
    assert scale is not None and scale.const_value is not None
    assert float(scale.const_value.numpy()) == float(np.float32(32**0.5))
