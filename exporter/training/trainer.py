"""A small training loop: AdamW, warm-up and linear decay, checkpoints that survive a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from eptx.exporter.methods.tuner import INFER
from eptx.exporter.training.batches import Batch, Example, collate, length_batches
from eptx.exporter.training.heads import TaskClassifier
from eptx.exporter.training.losses import task_head_loss
from eptx.files.publish import replacing

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TrainSettings:
    """What a run is determined by, beside the data and the model.

    Attributes:
        epochs: passes over the examples.
        tokens: padded tokens per batch.
        learning_rate: peak, reached after ``warmup`` of the steps.
        weight_decay: of AdamW.
        warmup: fraction of the steps.
        task_loss_weight: weight of the method's own contrastive task loss; 0 for methods without one.
        infer_fraction: fraction of the rows whose task the modules are not told but infer. Without such rows the
            adapted layers write the task they were told into position 0, and their embeddings learn to read that.
        clip: largest gradient norm.
        seed: of the batches and of dropout.
        bf16: run the forward under bfloat16 autocast; weights and optimizer stay float32.
        max_steps: end (with the learning rate decayed) after so many steps; None: after all epochs.
        checkpoint_seconds: time between checkpoints.
    """

    epochs: int
    tokens: int = 2048
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.06
    task_loss_weight: float = 0.0
    infer_fraction: float = 0.0
    clip: float = 1.0
    seed: int = 0
    bf16: bool = False
    max_steps: int | None = None
    checkpoint_seconds: float = 180.0


class Trainer:
    """Trains the adapter and the heads of one :class:`TaskClassifier`."""

    def __init__(
        self,
        classifier: TaskClassifier,
        examples: Sequence[Example],
        settings: TrainSettings,
        *,
        pad_token_id: int,
        checkpoint: Path | None = None,
        log: Callable[[str], None] = print,
    ) -> None:
        self.classifier = classifier
        self.examples = examples
        self.settings = settings
        self.pad_token_id = pad_token_id
        self.checkpoint = checkpoint
        self.log = log
        self.parameters = [p for p in classifier.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.batches = [batch for epoch in range(settings.epochs) for batch in self._epoch(epoch)][: settings.max_steps]
        self.step = 0

    def _epoch(self, epoch: int) -> list[list[int]]:
        seed = self.settings.seed * 1000 + epoch
        return length_batches([len(e.input_ids) for e in self.examples], self.settings.tokens, seed)

    def _schedule(self, step: int) -> float:
        total, warmup = len(self.batches), max(1, int(self.settings.warmup * len(self.batches)))
        return min((step + 1) / warmup, max(0.0, (total - step) / max(1, total - warmup)))

    def run(self) -> None:
        """Train to the end, from the checkpoint where there is one."""
        if self.checkpoint is not None and self.checkpoint.exists():
            self._resume(self.checkpoint)
        self.classifier.train()
        started, saved, first, running = time.monotonic(), time.monotonic(), self.step, 0.0
        while self.step < len(self.batches):
            batch = collate([self.examples[i] for i in self.batches[self.step]], self.pad_token_id)
            # Seeded per step, so that a resumed run draws the dropout that the unbroken one would have drawn.
            torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
            loss = self._loss(batch)
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * self._schedule(self.step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
            self.optimizer.step()
            self.step += 1
            running = float(loss.detach()) if running == 0 else 0.98 * running + 0.02 * float(loss.detach())
            if self.step % 50 == 0 or self.step == len(self.batches):
                pace = (time.monotonic() - started) / (self.step - first)
                left = pace * (len(self.batches) - self.step) / 60
                self.log(
                    f"step {self.step}/{len(self.batches)} loss {running:.4f} {pace:.2f} s/step {left:.0f} min left"
                )
            if self.checkpoint is not None and time.monotonic() - saved > self.settings.checkpoint_seconds:
                self._save(self.checkpoint)
                saved = time.monotonic()
        if self.checkpoint is not None:
            self._save(self.checkpoint)
        self.classifier.eval()

    def _loss(self, batch: Batch) -> Tensor:
        tuner: Any = self.classifier.model.base_model
        settings, told = self.settings, batch.tasks
        if settings.task_loss_weight:
            tuner.state.collect_loss, tuner.state.targets = True, batch.tasks
        if settings.infer_fraction:
            told = told.masked_fill(torch.rand(len(told)) < settings.infer_fraction, INFER)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            logits = self.classifier(batch.inputs, batch.tasks, told)
        loss = task_head_loss(logits, batch.tasks, batch.labels, self.classifier.heads.labels)
        if settings.task_loss_weight:
            loss = loss + settings.task_loss_weight * tuner.task_loss().float()
            tuner.state.collect_loss, tuner.state.targets = False, None
        return loss

    def _save(self, path: Path) -> None:
        """Weights, AdamW's moments and the step; a kill leaves the old file or the new one."""
        tensors = {"step": torch.tensor(self.step)}
        for index, parameter in enumerate(self.parameters):
            tensors[f"{index}.weight"] = parameter.detach()
            for moment in _MOMENTS:
                if moment in self.optimizer.state[parameter]:
                    tensors[f"{index}.{moment}"] = self.optimizer.state[parameter][moment]
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)

    def _resume(self, path: Path) -> None:
        tensors = load_file(path)
        self.step = int(tensors["step"])
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"{index}.weight"])
                moments = {moment: tensors.get(f"{index}.{moment}") for moment in _MOMENTS}
                self.optimizer.state[parameter] = {k: v for k, v in moments.items() if v is not None}
        self.log(f"resumed at step {self.step}")
