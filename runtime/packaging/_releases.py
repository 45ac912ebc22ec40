"""Which release of Triton has which ONNX Runtime.

From `build.py` in the release branches (r23.05 to r26.08) of https://github.com/triton-inference-server/server; what
KServe runs, from `charts/kserve-runtime-configs/values.yaml` (v0.14 to v0.20) of https://github.com/kserve/kserve.
"""

from __future__ import annotations

from eptx.bundle import OnnxRuntime

#: The first release of Triton with a newer ONNX Runtime than the one before -> that ONNX Runtime.
_TRITON = {
    "23.05": (1, 15),
    "23.09": (1, 16),
    "24.03": (1, 17),
    "24.05": (1, 18),
    "24.08": (1, 19),
    "24.12": (1, 20),
    "25.03": (1, 21),
    "25.05": (1, 22),
    "25.08": (1, 23),
    "26.02": (1, 24),
    "26.07": (1, 27),
    "26.08": (1, 28),
}
NEWEST_TRITON = max(_TRITON)
#: The Triton that KServe runs unless it is told another.
KSERVE_TRITON = "23.05"


def oldest_triton(needed: OnnxRuntime) -> str | None:
    """The first release of Triton that loads a bundle; None where no known one does."""
    major, _, minor = needed.version.partition(".")
    return next((triton for triton, has in _TRITON.items() if has >= (int(major), int(minor))), None)
