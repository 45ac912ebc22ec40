"""Running bundles with ONNX Runtime; needs neither PyTorch nor the exporter."""

from __future__ import annotations

from eptx.runtime.outputs import Outputs
from eptx.runtime.session import Session

__all__ = ["Outputs", "Session"]
