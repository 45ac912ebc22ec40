"""A small base, adapters on it with three tasks, and rows whose labels can be learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import get_peft_model
from torch import Tensor
from transformers import BertConfig, BertModel, TrainingArguments

from eptx.peft import EptConfig, TuckaConfig

TARGETS = r"encoder\.layer\.\d+\..*\.(query|value|dense)"
#: A task of two labels, a regression, a task of three.
LABELS = {"same": ["no", "yes"], "score": ["score"], "three": ["a", "b", "c"]}
LENGTH = 6


def base() -> BertModel:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertModel(config).eval()


def adapted(method: str, seed: int = 0, **settings: Any) -> Any:
    """The base with an adapter and heads, as PEFT makes it."""
    torch.manual_seed(seed)
    common: dict[str, Any] = {"target_modules": TARGETS, "task_head_pooling": "mean"}
    common |= {"tasks": list(LABELS), "task_labels": LABELS} | settings
    if method == "ept":
        return get_peft_model(base(), EptConfig(r=4, kernel_sizes=[2, 3, 4, 2], **common))
    return get_peft_model(base(), TuckaConfig(r=4, k=2, alpha=20, **common))


def rows(count: int = 48, seed: int = 0) -> list[dict[str, Any]]:
    """What a row's label is shows in how many of its tokens are below 9; rows are of the tasks in turn."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        pairs = int(rng.integers(4))
        low = rng.integers(5, 9, 2 * pairs)
        ids = rng.permutation([*low, *rng.integers(30, 34, LENGTH - len(low))]).tolist()
        label = (float(pairs > 1), pairs / 3, (0.0, 1.0, 1.0, 2.0)[pairs])[i % 3]
        mask, types = [1] * LENGTH, [0] * LENGTH
        found.append(
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "task": i % 3, "labels": label}
        )
    return found


def tensors(given: list[dict[str, Any]]) -> dict[str, Tensor]:
    """The rows as one batch, without their labels."""
    return {name: torch.tensor([row[name] for row in given]) for name in given[0] if name != "labels"}


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    """On the CPU, quiet, nothing saved unless asked for."""
    quiet: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "save_strategy": "no"}
    quiet |= {"per_device_train_batch_size": 12, "learning_rate": 1e-2, "dataloader_pin_memory": False}
    return TrainingArguments(str(folder), **{**quiet, **settings})
