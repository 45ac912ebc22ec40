"""Training of adapters with task heads: what a training script is made of, not a framework.

The tuner of a method that PEFT does not have is in the method's folder: `eptx.exporter.methods.<method>.model`.
"""

from __future__ import annotations

from eptx.exporter.training.batches import Batch, Example, collate, length_batches
from eptx.exporter.training.heads import TaskClassifier, TaskHeadBank, pool
from eptx.exporter.training.losses import task_head_loss
from eptx.exporter.training.save import add_adapter, load_adapter, save_adapter, save_heads
from eptx.exporter.training.trainer import Trainer, TrainSettings

__all__ = [
    "Batch",
    "Example",
    "TaskClassifier",
    "TaskHeadBank",
    "TrainSettings",
    "Trainer",
    "add_adapter",
    "collate",
    "length_batches",
    "load_adapter",
    "pool",
    "save_adapter",
    "save_heads",
    "task_head_loss",
]
