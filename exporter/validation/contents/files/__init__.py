"""The manifest and the files beside the model, compared with the base's folder and transformers' loaders."""

from eptx.exporter.validation.contents.files.compare import compare_files
from eptx.exporter.validation.contents.files.tasks import ExpectedTask

__all__ = ["ExpectedTask", "compare_files"]
