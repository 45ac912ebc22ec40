"""The manifest and the files beside the model, held to what they were made from: transformers' folder and loaders."""

from eptx.exporter.validation.companions.compare import compare_companions
from eptx.exporter.validation.companions.lookups import lookups
from eptx.exporter.validation.companions.tasks import ExpectedTask

__all__ = ["ExpectedTask", "compare_companions", "lookups"]
