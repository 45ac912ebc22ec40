"""What a recipe is: it trains adapters, and says what PEFT's own model answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

SAMPLES = Path(__file__).resolve().parents[2] / "examples" / "glue_minilm" / "samples.jsonl"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """One of PEFT's recipes.

    Attributes:
        name: what is trained.
        base: gives the base's transformers folder.
        train: (base folder, where adapters go) -> the adapters' folders, each a task.
        model: (base folder, an adapter's folder or None) -> the model in PyTorch, as the recipe loads it again.
        texts: what bundle and model are asked.
        output: what is compared.
    """

    name: str
    base: Callable[[], Path]
    train: Callable[[Path, Path], list[Path]]
    model: Callable[[Path, Path | None], Any]
    texts: Sequence[str]
    output: str = "logits"


def samples(task: str) -> list[dict[str, Any]]:
    """The GLUE rows of a task that the example carries."""
    rows = (json.loads(line) for line in SAMPLES.read_text().splitlines())
    return [row for row in rows if row["task"] == task]


def fit(model: Any, batches: Iterable[Mapping[str, Any]], *, rate: float = 2e-3) -> float:
    """Trains what PEFT left trainable; the loss of the last batch."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    loss = float("nan")
    for batch in batches:
        result = model(**batch).loss
        result.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss = float(result)
    model.eval()
    return loss


def on(model: Any, adapter: Path | None) -> Any:
    """A model with an adapter on it, ready to be asked."""
    return model.eval() if adapter is None else PeftModel.from_pretrained(model, adapter).eval()
