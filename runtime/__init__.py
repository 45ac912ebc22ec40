"""Running bundles with ONNX Runtime; needs neither PyTorch nor the exporter."""

from __future__ import annotations

from eptx.runtime._kernels import kernel_library
from eptx.runtime.outputs import Outputs
from eptx.runtime.session import Session

__all__ = ["Outputs", "Session", "kernel_library"]
