"""Recipes on SmolLM2-135M-Instruct: a causal language model with a resized vocabulary, in PEFT's three ways."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.recipes.recipe import Recipe, fit, on, samples
from tests.support.smollm2 import smollm2

_STEPS = 6
_TOKENS = ["<|review|>", "<|verdict|>", "<|good|>", "<|bad|>"]
_TEXTS = ["<|review|>a fine film<|verdict|>", "<|review|>dull from start to end<|verdict|>"]
#: name -> PEFT's settings for tokens that the base does not have.
_WAYS: dict[str, dict[str, Any]] = {
    "saved": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "trainable": {},
}


def _resized(base: Path, tokenizer: Any) -> Any:
    """The base with rows for the tokenizer's new tokens, the mean of all others as transformers sets them."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer))
    return model


def _train(way: str) -> Any:
    def train(base: Path, folder: Path) -> list[Path]:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(_TOKENS)
        settings = dict(_WAYS[way])
        if way == "trainable":
            settings["trainable_token_indices"] = tokenizer.convert_tokens_to_ids(_TOKENS)
        config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], **settings)
        model = get_peft_model(_resized(base, tokenizer), config)
        fit(model, _reviews(tokenizer), rate=5e-4)
        model.save_pretrained(folder / way)
        tokenizer.save_pretrained(folder / way)
        return [folder / way]

    return train


def _reviews(tokenizer: Any) -> Iterator[dict[str, Any]]:
    rows, chosen = samples("sst2"), random.Random(0)
    for _ in range(_STEPS):
        batch = chosen.sample(rows, 4)
        texts = [f"<|review|>{row['text']}<|verdict|>{('<|bad|>', '<|good|>')[int(row['label'])]}" for row in batch]
        encoded = tokenizer(texts, padding=True, return_tensors="pt")
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
        yield {**encoded, "labels": labels}


def _load(base: Path, adapter: Path | None) -> Any:
    if adapter is None:
        return on(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), None)
    return on(_resized(base, AutoTokenizer.from_pretrained(adapter)), adapter)


RECIPES = tuple(
    Recipe(f"language model with new tokens, {words}", smollm2, _train(way), _load, _TEXTS)
    for way, words in (("saved", "embeddings and head saved"), ("trainable", "trainable_token_indices"))
)
