"""Training of EPT and TuckA adapters with task heads: what a training script is made of, not a framework."""

from __future__ import annotations

from eptx.exporter.methods.ept.config import EptConfig
from eptx.exporter.methods.ept.model import EptModel
from eptx.exporter.methods.tucka.config import TuckaConfig
from eptx.exporter.methods.tucka.model import TuckaModel
from eptx.exporter.training.batches import Batch, Example, collate, length_batches
from eptx.exporter.training.embeddings import fit_task_embeddings
from eptx.exporter.training.heads import TaskClassifier, TaskHeadBank, pool
from eptx.exporter.training.losses import task_head_loss
from eptx.exporter.training.save import add_adapter, load_adapter, save_adapter
from eptx.exporter.training.trainer import Trainer, TrainSettings

__all__ = [
    "Batch",
    "EptConfig",
    "EptModel",
    "Example",
    "TaskClassifier",
    "TaskHeadBank",
    "TrainSettings",
    "Trainer",
    "TuckaConfig",
    "TuckaModel",
    "add_adapter",
    "collate",
    "fit_task_embeddings",
    "length_batches",
    "load_adapter",
    "pool",
    "save_adapter",
    "task_head_loss",
]
