"""The manifest and the files beside the model, held to what they were made from: transformers' folder and loaders."""

from eptx.exporter.validation.contents.files.compare import compare_companions
from eptx.exporter.validation.contents.files.tasks import ExpectedTask

__all__ = ["ExpectedTask", "compare_companions"]
