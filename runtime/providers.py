"""Choosing an execution provider, and opening a model in ONNX Runtime with one-line errors."""

from __future__ import annotations

import importlib
from typing import Any

from eptx._one_line import one_line, shown
from eptx.bundle import Bundle
from eptx.errors import BundleError, EptxError, LimitError, NotSupportedError, UsageError
from eptx.runtime._integers import EXACT_ENTRY
from eptx.runtime.kernels import Kernels, choose_kernels, register

PROVIDERS = ("auto", "cpu", "cuda")
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_OUT_OF_MEMORY = ("failed to allocate", "bad_alloc", "bad allocation", "out of memory")
_FOLDING_LIMIT = 64 << 20


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
    """``cpu`` or ``cuda``: what was asked for, or with ``auto`` CUDA where it is there and the bundle is made
    for it.

    Raises:
        NotSupportedError: CUDA was asked for and this ONNX Runtime has none.
        UsageError: no such provider.
    """
    if not isinstance(wanted, str) or wanted not in PROVIDERS:
        raise UsageError(f"no provider {shown(wanted)}; choose one of {', '.join(PROVIDERS)}")
    if wanted == "cpu":
        return "cpu"
    available = _CUDA in onnxruntime().get_available_providers()
    if wanted == "auto":
        return "cuda" if available and exported_for == "cuda" else "cpu"
    if not available:
        raise NotSupportedError(
            "provider cuda: the installed onnxruntime is built without CUDA; "
            "pip uninstall onnxruntime, then pip install 'eptx[gpu]'"
        )
    return "cuda"


def open_session(bundle: Bundle, provider: str, threads: int | None, options: Any) -> tuple[Any, Kernels]:
    """An ``onnxruntime.InferenceSession`` on the bundle's model, and what runs its own operators.

    Args:
        bundle: a checked bundle.
        provider: ``cpu`` or ``cuda``.
        threads: how many threads one operator may use; None lets ONNX Runtime choose.
        options: an ``onnxruntime.SessionOptions`` to use as it is instead of the defaults, or None.

    Raises:
        BundleError: ONNX Runtime does not load the model.
        NotSupportedError: CUDA does not start on this machine.
        LimitError: there is not enough memory.
    """
    if options is not None:  # a library that is registered twice on the same options breaks them
        return _open(bundle, provider, threads, options), Kernels(None, "the session_options are the caller's own")
    kernels = choose_kernels(bundle, provider)
    if kernels.library is not None:
        options = session_options(bundle)
        kernels = register(options, kernels)
    if kernels.library is not None:
        try:
            return _open(bundle, provider, threads, options), kernels
        except BundleError as e:  # the model's functions may know types that the kernels do not
            kernels = Kernels(None, f"they do not run this model: {e}")
    return _open(bundle, provider, threads, session_options(bundle)), kernels


def _open(bundle: Bundle, provider: str, threads: int | None, options: Any) -> Any:
    ort = onnxruntime()
    if threads is not None:
        options.intra_op_num_threads = threads
    if provider == "cuda":
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(
            str(bundle.model), options, providers=execution_providers(provider), enable_fallback=0
        )
    except Exception as e:  # ONNX Runtime has a dozen exception classes and no common one
        hint = (
            f" (the bundle was exported for {bundle.manifest.provider})" if bundle.manifest.provider != provider else ""
        )
        raise wrapped(e, f"{bundle.model.name}: ONNX Runtime does not load it{hint}", BundleError) from None
    if provider == "cuda" and _CUDA not in session.get_providers():
        raise NotSupportedError(
            "provider cuda: ONNX Runtime has it but it does not start here; see that a GPU, its driver "
            "and the CUDA and cuDNN libraries of onnxruntime-gpu are installed"
        )
    return session


def wrapped(e: Exception, what: str, error: type[EptxError]) -> EptxError:
    """An exception of ONNX Runtime as one line: a `LimitError` when memory ran out, else ``error``."""
    text = one_line(e)
    if isinstance(e, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        return LimitError(f"{what}: not enough memory: {text}")
    return error(f"{what}: {text}")


def execution_providers(provider: str) -> list[Any]:
    """What ONNX Runtime is to run on.

    CUDA multiplies float32 with 10 bits of mantissa (TF32) unless told not to: a thousand times the rounding that a
    bundle was validated for.
    """
    return [(_CUDA, {"use_tf32": "0"}), _CPU] if provider == "cuda" else [_CPU]


def session_options(bundle: Bundle) -> Any:
    """The ``onnxruntime.SessionOptions`` that eptx opens a bundle with."""
    options = onnxruntime().SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; nothing of it is printed beside
    for key, value in config_entries(bundle).items():
        options.add_session_config_entry(key, value)
    return options


def config_entries(bundle: Bundle) -> dict[str, str]:
    """The session's configuration entries.

    A small model can ask constant folding for gigabytes; a bundle's weights need no more than their size.
    """
    limit = max(bundle.size, _FOLDING_LIMIT)
    return {"optimization.constant_folding_max_output_size_in_bytes": str(limit), **EXACT_ENTRY}
