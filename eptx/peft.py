"""Trains EPT and TuckA with PEFT and transformers.

Importing it makes both known to PEFT: ``get_peft_model(model, EptConfig(...))`` and ``PeftModel.from_pretrained`` then
work. `TaskTrainer` is transformers' ``Trainer`` for rows of several tasks, `RowEncoder` makes such rows of texts. What
``save_pretrained`` or a checkpoint of the trainer holds is what ``eptx export`` reads. docs/training.md shows the whole
way.
"""

from __future__ import annotations

from eptx.exporter.methods.ept.config import EptConfig
from eptx.exporter.methods.ept.model import EptModel
from eptx.exporter.methods.ept.task_embeddings import fit_task_embeddings
from eptx.exporter.methods.tucka.config import TuckaConfig
from eptx.exporter.methods.tucka.model import TuckaModel
from eptx.exporter.training.data import RowEncoder, TaskSampler
from eptx.exporter.training.heads import TaskHeadBank
from eptx.exporter.training.metrics import TaskMetrics
from eptx.exporter.training.model import PeftModelForTaskHeads
from eptx.exporter.training.save import save_heads
from eptx.exporter.training.trainer import TaskTrainer

__all__ = [
    "EptConfig",
    "EptModel",
    "PeftModelForTaskHeads",
    "RowEncoder",
    "TaskHeadBank",
    "TaskMetrics",
    "TaskSampler",
    "TaskTrainer",
    "TuckaConfig",
    "TuckaModel",
    "fit_task_embeddings",
    "save_heads",
]
