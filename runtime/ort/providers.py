"""The ``onnxruntime`` module, and the choice of an execution provider."""

from __future__ import annotations

import importlib
from typing import Any

from eptx._one_line import one_line, shown
from eptx.errors import NotSupportedError, UsageError
from eptx.manifest.names import PROVIDERS

#: What a caller may ask for; "auto" is the best that works.
PROVIDER_CHOICES = ("auto", *PROVIDERS)
CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


def onnxruntime() -> Any:
    """The ``onnxruntime`` module.

    Raises:
        NotSupportedError: it is not installed.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as e:
        raise NotSupportedError(
            f"ONNX Runtime cannot be imported ({one_line(e)}); pip install 'eptx[cpu]' or 'eptx[gpu]'"
        ) from None


def choose_provider(wanted: str, exported_for: str) -> str:
    """``cpu`` or ``cuda``. ``auto`` means CUDA if this machine has it and the bundle was exported for it.

    Raises:
        NotSupportedError: CUDA is wanted and this ONNX Runtime has none.
        UsageError: there is no such provider.
    """
    if not isinstance(wanted, str) or wanted not in PROVIDER_CHOICES:
        raise UsageError(f"no provider {shown(wanted)}; choose one of {', '.join(PROVIDER_CHOICES)}")
    if wanted == "cpu":
        return "cpu"
    available = CUDA in onnxruntime().get_available_providers()
    if wanted == "auto":
        return "cuda" if available and exported_for == "cuda" else "cpu"
    if not available:
        raise NotSupportedError(
            "provider cuda: the installed onnxruntime is built without CUDA; "
            "pip uninstall onnxruntime, then pip install 'eptx[gpu]'"
        )
    return "cuda"


def execution_providers(provider: str) -> list[Any]:
    """The ``providers`` argument of an ``onnxruntime.InferenceSession``.

    By default, CUDA multiplies float32 with 10 bits of mantissa (TF32). That rounds a thousand times more coarsely than
    a bundle was validated for, so it is switched off.
    """
    return [(CUDA, {"use_tf32": "0"}), _CPU] if provider == "cuda" else [_CPU]
