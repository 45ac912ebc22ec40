"""Training: every method sees the same rows in the same batches; each has the same choice of learning rates."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from transformers import AutoModel

from eptx.exporter.training import Trainer, TrainSettings, collate, length_batches
from tests.bench.glue.classifier import Classifier, answers, first_heads, metrics, relative_loss
from tests.bench.glue.data import Data
from tests.bench.glue.methods import Method

#: Padded tokens of a batch.
TOKENS = 1024


@dataclass(frozen=True)
class Plan:
    """What all trainings share.

    Attributes:
        base: transformers folder. data: the rows. out: where adapters and results go.
        steps: at most so many; None: one pass over the rows.
        seed: of the batches, the heads and the adapters.
        bf16: whether the forward runs under bfloat16 autocast; weights and optimizer stay float32.
        log: told what happens.
    """

    base: Path
    data: Data
    out: Path
    steps: int | None
    seed: int
    bf16: bool
    log: Callable[[str], None]

    def fresh_base(self) -> Any:
        """The base; without dropout on attention, which costs time."""
        return AutoModel.from_pretrained(self.base, attention_probs_dropout_prob=0.0)


def train(plan: Plan, method: Method, rate: float) -> dict[str, Any]:
    """Trains at one learning rate, saves the adapters and scores the model, whose logits are kept.

    ``held_out`` is the loss on training rows that were held out: by it a method's rate is chosen, and never by the
    validation rows.
    """
    start = time.monotonic()
    own = run_folder(plan.out, method, rate)
    logits: dict[str, np.ndarray] = {}
    held_out: dict[str, np.ndarray] = {}
    parameters, steps = 0, 0
    for tasks in method.parts:
        classifier, done = _trained(plan, method, tasks, rate)
        steps += done
        parameters += _count(classifier.model)
        method.save(classifier.model, classifier.heads, method.folder(own, tasks))
        held_out |= answers(classifier, plan.data.held_out, plan.data.pad)
        logits |= answers(classifier, plan.data.valid, plan.data.pad)
    own.mkdir(parents=True, exist_ok=True)
    save_file(logits, own / "logits.safetensors")
    return {
        "rate": rate,
        "held_out": relative_loss(held_out, plan.data.held_out),
        "steps": steps,
        "parameters": parameters,
        "seconds": time.monotonic() - start,
        "tasks": metrics(logits, plan.data.valid),
    }


def run_folder(out: Path, method: Method, rate: float) -> Path:
    """Where the adapters, bundles and results of one training are."""
    return out / method.name / f"{rate:g}"


def best_run(out: Path, method: Method, rates: Sequence[float]) -> Path | None:
    """The training of the least loss on held-out training rows; None while one is missing."""
    folders = [run_folder(out, method, rate) for rate in rates]
    if not all((folder / "train.json").exists() for folder in folders):
        return None
    return min(folders, key=lambda folder: float(json.loads((folder / "train.json").read_text())["held_out"]))


def _trained(plan: Plan, method: Method, tasks: list[str], rate: float) -> tuple[Classifier, int]:
    """One adapter; one of a single task gets the share of the steps that its rows have of all batches."""
    steps = plan.steps
    rows = plan.data.mixed(tasks)
    own = length_batches([len(row.input_ids) for row in rows], TOKENS, plan.seed * 1000)
    if steps is not None and method.alone:
        steps = math.ceil(steps * len(own) / _all_batches(plan))
    torch.manual_seed(plan.seed)
    first = [collate([rows[i] for i in batch], plan.data.pad) for batch in own[:8]]
    adapted = method.build(plan.fresh_base(), tasks, first)
    heads = first_heads(adapted.model.config.hidden_size, tasks, plan.data.train, plan.seed)
    classifier = Classifier(adapted, heads)
    settings = TrainSettings(
        epochs=1, tokens=TOKENS, learning_rate=rate, seed=plan.seed, bf16=plan.bf16, max_steps=steps
    )
    name = tasks[0] if method.alone else "all"
    kept = plan.out / "checkpoints" / method.name / f"{rate:g}" / f"{name}.safetensors"
    title = f"{method.name} {rate:g} {name}"
    trainer = Trainer(
        classifier,
        rows,
        settings,
        pad_token_id=plan.data.pad,
        checkpoint=kept,
        log=lambda line: plan.log(f"{title} {line}"),
    )
    trainer.run()
    return classifier, len(trainer.batches)


def _all_batches(plan: Plan) -> int:
    """How many batches the rows of all tasks make, task by task."""
    of_task: Sequence[Sequence[Any]] = list(plan.data.train.values())
    return sum(len(length_batches([len(row.input_ids) for row in rows], TOKENS, 0)) for rows in of_task)


def _count(model: nn.Module) -> int:
    """The parameters of the adapter, without heads."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
