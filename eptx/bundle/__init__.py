"""Bundles: folders that hold an adapted model and all that it needs to run.

`read_bundle` opens one and checks it; `BundleWriter` makes one and puts it in place in one step.

A bundle may come from anywhere, so reading trusts nothing in it: names stay inside the folder, every file is
plain and listed with its size and SHA-256, and the model may only use operators that ONNX Runtime or the
model itself defines. Not covered: a bundle that someone changes while it is being read, and a model that asks
for more memory or time than the machine has.
"""

from eptx.bundle._reader import Bundle, check_graph, read_bundle
from eptx.bundle._writer import BundleWriter, write_report
from eptx.manifest.content import (
    AnswerRules,
    Component,
    Embedding,
    EmbeddingLayer,
    FileEntry,
    Generation,
    Manifest,
    ModuleOutput,
    OnnxRuntime,
    Operators,
    Quantization,
    Sources,
    Task,
    TensorSpec,
    Text,
)
from eptx.manifest.image import Image, Resize

__all__ = [
    "AnswerRules",
    "Bundle",
    "BundleWriter",
    "Component",
    "Embedding",
    "EmbeddingLayer",
    "FileEntry",
    "Generation",
    "Image",
    "Manifest",
    "ModuleOutput",
    "OnnxRuntime",
    "Operators",
    "Quantization",
    "Resize",
    "Sources",
    "Task",
    "TensorSpec",
    "Text",
    "check_graph",
    "read_bundle",
    "write_report",
]
