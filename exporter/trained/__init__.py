"""The trained model, loaded from its files as the library that trained it loads them.

Bundles are compared with it, so it uses no reader, fold or head of the exporter; docs/architecture.md lists what both
use. The adapter is PEFT's own or a PEFT tuner that PEFT fills; the class is the one that was trained; a tensor that no
parameter takes, or a parameter that no tensor fills, is an error.
"""

from eptx.exporter.trained.classes import said_class, same_class
from eptx.exporter.trained.files import AdapterFiles
from eptx.exporter.trained.host import Host
from eptx.exporter.trained.loading import load_trained
from eptx.exporter.trained.model import Trained
from eptx.exporter.trained.output import Output
from eptx.exporter.trained.reference import name_tasks, read_files

__all__ = [
    "AdapterFiles",
    "Host",
    "Output",
    "Trained",
    "load_trained",
    "name_tasks",
    "read_files",
    "said_class",
    "same_class",
]
