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
from safetensors.numpy import save_file
from torch import nn
from transformers import AutoModel, TrainingArguments, set_seed

from eptx.peft import TaskTrainer
from tests.bench.glue.classifier import Classifier, answers, first_heads, metrics, relative_loss
from tests.bench.glue.data import Data
from tests.bench.glue.methods import Method

#: Rows of a batch.
ROWS = 24


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
        method.save(classifier.model, classifier.task_heads, method.folder(own, tasks))
        held_out |= answers(classifier, plan.data.held_out, plan.data.tokenizer)
        logits |= answers(classifier, plan.data.valid, plan.data.tokenizer)
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
    """One adapter; one of a single task gets the share of the steps that its rows have of all."""
    rows = plan.data.mixed(tasks)
    steps = plan.steps
    if steps is not None and method.alone:
        steps = math.ceil(steps * len(rows) / sum(map(len, plan.data.train.values())))
    set_seed(plan.seed)
    adapted = method.build(plan.fresh_base(), tasks)
    heads = first_heads(adapted.model.config.hidden_size, tasks, plan.data.train, plan.seed)
    classifier = Classifier(adapted, heads)
    arguments = TrainingArguments(
        str(plan.out / "trainer"),
        num_train_epochs=1,
        max_steps=-1 if steps is None else steps,
        per_device_train_batch_size=ROWS,
        train_sampling_strategy="group_by_length",
        learning_rate=rate,
        warmup_steps=0.06,
        weight_decay=0.01,
        seed=plan.seed,
        bf16=plan.bf16,
        use_cpu=True,
        save_strategy="no",
        logging_steps=50,
        report_to=[],
    )
    plan.log(f"{method.name} {rate:g} {tasks[0] if method.alone else 'all'}")
    trainer = TaskTrainer(model=classifier, args=arguments, train_dataset=rows, processing_class=plan.data.tokenizer)
    trainer.train()
    return classifier, trainer.state.global_step


def _count(model: nn.Module) -> int:
    """The parameters of the adapter, without heads."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
