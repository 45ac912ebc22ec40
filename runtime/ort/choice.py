"""The choice of an execution provider: which one a caller gets, and why not another."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from eptx._one_line import both_ends, one_line, shown
from eptx.errors import NotSupportedError, UsageError
from eptx.providers import CPU, PROVIDER_CHOICES, PROVIDERS, Provider
from eptx.runtime.ort.providers import has_started, is_built_in, onnxruntime
from eptx.runtime.ort.sessions import start_session

#: The model ``y = Add(x, x)``, float32 [2], of opset 13.
_ADD = (
    b'\x08\x08:7\n\x10\n\x01x\n\x01x\x12\x01y"\x03Add:\x00\x12\x01aZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02'
    b"\x08\x02b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x04\n\x00\x10\r"
)
_LIBRARY = {"win32": "onnxruntime_providers_{}.dll", "darwin": "libonnxruntime_providers_{}.dylib"}
_log = logging.getLogger("eptx.runtime")
_lock = threading.Lock()


@dataclass(frozen=True)
class Choice:
    """A provider that starts on this machine.

    Attributes:
        provider: its name.
        reason: why ``auto`` is not what the bundle was exported for; None if it is, or if the caller named it.
    """

    provider: str
    reason: str | None = None


def choose_provider(wanted: str, exported_for: str) -> Choice:
    """The provider to run on. ``auto`` is what the bundle was exported for, where it starts, or else the CPU.

    Args:
        wanted: one of `PROVIDER_CHOICES`.
        exported_for: the provider whose fusions the bundle's graph has.

    Raises:
        NotSupportedError: a provider that is named is not in this ONNX Runtime, or does not start on this machine.
        UsageError: there is no such provider.
    """
    if not isinstance(wanted, str) or wanted not in PROVIDER_CHOICES:
        raise UsageError(f"no provider {shown(wanted)}; choose one of {', '.join(PROVIDER_CHOICES)}")
    if wanted != "auto":
        check_provider(wanted)
        return Choice(wanted)
    why = why_not(exported_for)
    if why is None:
        return Choice(exported_for)
    _warn(f"provider auto: the bundle was exported for {exported_for} and runs on the CPU: {why}")
    return Choice(CPU, why)


def check_provider(provider: str) -> None:
    """Raises NotSupportedError if a provider is not in this ONNX Runtime, or does not start on this machine."""
    why = why_not(provider)
    if why is not None:
        raise NotSupportedError(f"provider {provider}: {why}")


def why_not(provider: str) -> str | None:
    """Why a provider cannot be used here, on one line; None if it can."""
    if provider == CPU:
        return None
    if not is_built_in(provider):
        version = onnxruntime().__version__
        return f"the installed onnxruntime {version} is built without it; {PROVIDERS[provider].install}"
    with _lock:
        return _why_it_does_not_start(provider)


@functools.cache
def _why_it_does_not_start(name: str) -> str | None:
    """Starts it on a small model: ONNX Runtime itself goes on without a provider that does not start."""
    provider = PROVIDERS[name]
    said = _preloaded() if provider.preload else ""
    try:
        session = start_session(_ADD, None, name)
    except Exception as e:  # ONNX Runtime has a dozen exception classes and no common one
        raised: str | None = both_ends(e)
    else:
        if has_started(session, name):
            return None
        raised = None
    why = _loader_error(provider) or raised or said or "ONNX Runtime does not say why"
    return f"it does not start: {why}; it needs {provider.needs}"


def _preloaded() -> str:
    """Loads the libraries of CUDA that Python packages hold; what ONNX Runtime prints about those that are missing."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):  # standard output is for data
        onnxruntime().preload_dlls()
    return printed.getvalue().partition("\n")[0]


def _loader_error(provider: Provider) -> str | None:
    """Why the system does not load the provider's library, which ONNX Runtime writes into its log only."""
    if provider.library is None:
        return None
    name = _LIBRARY.get(sys.platform, "libonnxruntime_providers_{}.so").format(provider.library)
    try:
        ctypes.CDLL(str(Path(onnxruntime().__file__).parent / "capi" / name))
    except OSError as e:
        return one_line(e)
    return None


@functools.cache
def _warn(message: str) -> None:
    """Logs a warning, once in this process."""
    _log.warning(message)
