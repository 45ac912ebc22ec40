"""A decoder of a billion random weights, of TinyLlama 1.1B's sizes, with an EPT adapter at all of its linear layers."""

from __future__ import annotations

from pathlib import Path

from tests.exporter.validation.adapters import write_ept
from tests.support.decoders import write_tokenizer

TASKS = 3
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_large_decoder(folder: Path) -> tuple[Path, Path]:
    """The folders of base and adapter, made where they are not there yet."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    base, adapter = folder / "base", folder / "adapter"
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        pad_token_id=0,
    )
    with torch.device("meta"):
        empty = LlamaForCausalLM(config)
    shapes = {
        name: (layer.out_features, layer.in_features)
        for name, layer in empty.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.endswith(_MODULES)
    }
    if not base.is_dir():
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(base)
        write_tokenizer(base, config.vocab_size)
    if not adapter.is_dir():
        write_ept(adapter, shapes, seed=3, tasks=TASKS)
    return base, adapter
