"""Decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.matrix.row import Row, texts
from tests.support.decoders import write_tokenizer

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # GenAI's attention turns multiples of 16 numbers of a head
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CAUSAL_LM: dict[str, Any] = {"task_type": "CAUSAL_LM"}


def tokenizer(folder: Path) -> None:
    """A tokenizer of 60 words."""
    write_tokenizer(folder, 60)


ROWS: tuple[Row, ...] = (
    Row(
        "Llama",
        "decoders",
        "LlamaForCausalLM",
        ("LlamaConfig", SMALL),
        texts(60),
        kind="decoder",
        peft=CAUSAL_LM,
        prepare=tokenizer,
    ),
)
