"""Running bundles with ONNX Runtime; needs neither PyTorch nor the exporter."""

from __future__ import annotations

from eptx.runtime.generation.outputs import Generated, Piece, Stream
from eptx.runtime.generation.settings import SearchOptions
from eptx.runtime.ort.kernels import kernel_library
from eptx.runtime.outputs import Outputs
from eptx.runtime.session import Session

__all__ = ["Generated", "Outputs", "Piece", "SearchOptions", "Session", "Stream", "kernel_library"]
