"""Opens models in ONNX Runtime: the one place in eptx that makes an ``InferenceSession``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from eptx._one_line import one_line
from eptx.bundle import Bundle
from eptx.errors import BundleError, EptxError, LimitError, NotSupportedError
from eptx.runtime.ort.kernels import Kernels, open_with_kernels, register
from eptx.runtime.ort.providers import CUDA, execution_providers, onnxruntime
from eptx.runtime.ort.releases import read_release, shown

#: Makes products of 8-bit integers exact on processors without VNNI; see `eptx.runtime.ort.integers`.
EXACT_ENTRY = {"session.x64quantprecision": "1"}
_OPTIMIZATION = {"all": "ORT_ENABLE_ALL", "basic": "ORT_ENABLE_BASIC", "none": "ORT_DISABLE_ALL"}
_OUT_OF_MEMORY = ("failed to allocate", "bad_alloc", "bad allocation", "out of memory")
_FOLDING_LIMIT = 64 << 20


def session_options(
    threads: int | None = None,
    *,
    optimization: Literal["all", "basic", "none"] = "all",
    entries: Mapping[str, str] | None = None,
) -> Any:
    """The ``onnxruntime.SessionOptions`` that eptx opens any model with.

    Args:
        threads: how many threads one operator may use; None lets ONNX Runtime choose.
        optimization: which of its graph optimizations ONNX Runtime applies.
        entries: further configuration entries.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised; nothing is printed
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _OPTIMIZATION[optimization])
    if threads is not None:
        options.intra_op_num_threads = threads
    for key, value in (EXACT_ENTRY | dict(entries or {})).items():
        options.add_session_config_entry(key, value)
    return options


def open_session(model: bytes | str | os.PathLike[str], options: Any = None, provider: str = "cpu") -> Any:
    """An ``onnxruntime.InferenceSession``.

    Args:
        model: the path of an .onnx file, or the model's bytes.
        options: an ``onnxruntime.SessionOptions``; None: those of `session_options`.
        provider: ``cpu`` or ``cuda``.

    Raises:
        NotSupportedError: ONNX Runtime is not installed, or CUDA does not start on this machine.
        Exception: ONNX Runtime does not load the model; see `wrapped_errors`.
    """
    ort = onnxruntime()
    if provider == "cuda":
        ort.preload_dlls()
    session = ort.InferenceSession(
        model if isinstance(model, bytes) else os.fspath(model),
        session_options() if options is None else options,
        providers=execution_providers(provider),
        enable_fallback=0,  # the fallback would try the same again, and print
    )
    if provider == "cuda" and CUDA not in session.get_providers():
        raise NotSupportedError(
            "provider cuda: ONNX Runtime has it but it does not start here; see that a GPU, its driver "
            "and the CUDA and cuDNN libraries of onnxruntime-gpu are installed"
        )
    return session


def open_bundle(
    bundle: Bundle, provider: str, threads: int | None, options: Any = None, *, model: Path | None = None
) -> tuple[Any, Kernels]:
    """An ``onnxruntime.InferenceSession`` on a model of a bundle, and what runs the model's own operators.

    Args:
        bundle: a checked bundle.
        provider: ``cpu`` or ``cuda``.
        threads: how many threads one operator may use; None lets ONNX Runtime choose.
        options: an ``onnxruntime.SessionOptions`` to use instead of eptx's, or None.
        model: the model's file; None: ``model.onnx``.

    Raises:
        BundleError: ONNX Runtime does not load the model.
        NotSupportedError: CUDA does not start on this machine, or the bundle needs a newer ONNX Runtime.
        LimitError: there is not enough memory.
    """
    check_release(bundle)
    path = bundle.model if model is None else model
    if options is not None:  # registering a library twice on the same options breaks them
        if threads is not None:
            options.intra_op_num_threads = threads
        return _open(bundle, path, options, provider), Kernels(None, "the session_options are the caller's own")

    def open_model(kernels: Kernels) -> tuple[Any, Kernels]:
        own = bundle_options(bundle, threads)
        registered = register(own, kernels)
        return _open(bundle, path, own, provider), registered

    return open_with_kernels(bundle, provider, open_model)


def check_release(bundle: Bundle) -> None:
    """Refuses an ONNX Runtime that is older than what the bundle needs, in place of its own errors.

    Raises:
        NotSupportedError: it is older.
    """
    needed, installed = bundle.manifest.onnxruntime, str(onnxruntime().__version__)
    release = read_release(installed)
    wanted = None if needed is None else read_release(needed.version)
    if needed is None or release is None or wanted is None or release >= wanted:
        return
    raise NotSupportedError(
        f"the bundle needs ONNX Runtime {needed.version} or newer, and {installed} is installed: install a "
        f"newer one, or export again with --min-ort {shown(release)}"
    )


def bundle_options(bundle: Bundle, threads: int | None = None) -> Any:
    """The ``onnxruntime.SessionOptions`` that eptx opens a bundle with."""
    return session_options(threads, entries=config_entries(bundle))


def config_entries(bundle: Bundle) -> dict[str, str]:
    """The configuration entries of a bundle's session.

    A small model can ask constant folding for gigabytes; a bundle's weights need no more than their size.
    """
    limit = max(bundle.size, _FOLDING_LIMIT)
    return {"optimization.constant_folding_max_output_size_in_bytes": str(limit), **EXACT_ENTRY}


def wrapped(e: Exception, what: str, error: type[EptxError]) -> EptxError:
    """An exception of ONNX Runtime on one line: a `LimitError` if memory ran out, else ``error``; eptx's own stay."""
    if isinstance(e, EptxError):
        return e
    text = one_line(e)
    if isinstance(e, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        return LimitError(f"{what}: not enough memory: {text}")
    return error(f"{what}: {text}")


@contextmanager
def wrapped_errors(what: str, error: type[EptxError]) -> Iterator[None]:
    """A block whose exceptions are `wrapped`: ONNX Runtime has a dozen exception classes and no common one."""
    try:
        yield
    except Exception as e:
        raise wrapped(e, what, error) from None


def _open(bundle: Bundle, model: Path, options: Any, provider: str) -> Any:
    exported_for = bundle.manifest.provider
    hint = f" (the bundle was exported for {exported_for})" if exported_for != provider else ""
    with wrapped_errors(f"{model.name}: ONNX Runtime does not load it{hint}", BundleError):
        return open_session(model, options, provider)
