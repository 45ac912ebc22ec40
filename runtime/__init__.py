"""Running bundles with ONNX Runtime; needs neither PyTorch nor the exporter."""

from __future__ import annotations

from eptx.runtime.generation.outputs import Generated, Logprobs, Piece, Stream
from eptx.runtime.generation.settings import ChatOptions, SearchOptions
from eptx.runtime.ort.kernels import kernel_library
from eptx.runtime.outputs import Outputs
from eptx.runtime.session import Session

__all__ = [
    "ChatOptions",
    "Generated",
    "Logprobs",
    "Outputs",
    "Piece",
    "SearchOptions",
    "Session",
    "Stream",
    "kernel_library",
]
