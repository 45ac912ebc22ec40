"""Training: every method sees the same rows in the same batches; each takes the best of the same learning rates."""

from __future__ import annotations

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

#: What each method's learning rate is chosen from.
RATES = (1e-3, 3e-3, 1e-2)
TOKENS = 1024


@dataclass(frozen=True)
class Plan:
    """What all trainings share.

    Attributes:
        base: transformers folder. data: the rows. out: where adapters and results go.
        steps: at most so many; None: one pass over the rows.
        pilot: steps for each of `RATES`, before the training.
        seed: of the batches, the heads and the adapters.
        bf16: whether the forward runs under bfloat16 autocast; weights and optimizer stay float32.
        log: told what happens.
    """

    base: Path
    data: Data
    out: Path
    steps: int | None
    pilot: int
    seed: int
    bf16: bool
    log: Callable[[str], None]

    def fresh_base(self) -> Any:
        """The base; without dropout on attention, which costs time."""
        return AutoModel.from_pretrained(self.base, attention_probs_dropout_prob=0.0)


def train(plan: Plan, method: Method) -> dict[str, Any]:
    """Chooses the learning rate, trains, saves the adapters and scores the model, whose logits are kept."""
    start = time.monotonic()
    losses = {rate: _pilot(plan, method, rate) for rate in RATES} if plan.pilot else {}
    rate = min(losses, key=lambda each: losses[each], default=RATES[1])
    plan.log(f"{method.name}: learning rate {rate:g}; loss by rate {losses}")
    logits: dict[str, np.ndarray] = {}
    parameters, steps = 0, 0
    for tasks in method.parts:
        classifier, done = _trained(plan, method, tasks, rate, plan.steps, checkpoint="_".join(tasks))
        steps += done
        parameters += _count(classifier.model)
        method.save(classifier.model, classifier.heads, method.folder(plan.out, tasks))
        logits |= answers(classifier, plan.data.valid, plan.data.pad)
    (plan.out / method.name).mkdir(parents=True, exist_ok=True)
    save_file(logits, plan.out / method.name / "logits.safetensors")
    return {
        "rate": rate,
        "pilot": {f"{each:g}": loss for each, loss in losses.items()},
        "steps": steps,
        "parameters": parameters,
        "seconds": time.monotonic() - start,
        "tasks": metrics(logits, plan.data.valid),
    }


def _pilot(plan: Plan, method: Method, rate: float) -> float:
    """The loss on held-out training rows after a short training at this rate."""
    logits: dict[str, np.ndarray] = {}
    for tasks in method.parts:
        classifier, _ = _trained(plan, method, tasks, rate, plan.pilot, checkpoint=None)
        logits |= answers(classifier, plan.data.held_out, plan.data.pad)
    return relative_loss(logits, plan.data.held_out)


def _trained(
    plan: Plan, method: Method, tasks: list[str], rate: float, steps: int | None, *, checkpoint: str | None
) -> tuple[Classifier, int]:
    """One adapter; one of a single task gets the share of the steps that its rows have of all batches."""
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
    kept = plan.out / "checkpoints" / method.name / f"{checkpoint}.safetensors" if checkpoint else None
    title = f"{method.name} {tasks[0] if method.alone else ''} {rate:g}"
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
