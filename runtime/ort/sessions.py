"""Opens models in ONNX Runtime: the one place in eptx that makes an ``InferenceSession``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from eptx._one_line import both_ends
from eptx.bundle import Bundle
from eptx.errors import BundleError, EptxError, LimitError, NotSupportedError
from eptx.providers import CPU, PROVIDERS
from eptx.runtime.ort.kernels import Kernels, open_with_kernels, register
from eptx.runtime.ort.providers import (
    REMEMBER_NODES,
    execution_providers,
    has_started,
    onnxruntime,
    operators_by_provider,
)
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


def open_session(model: bytes | str | os.PathLike[str], options: Any = None, provider: str = CPU) -> Any:
    """An ``onnxruntime.InferenceSession`` that runs nodes of the model on the provider.

    Args:
        model: the path of an .onnx file, or the model's bytes.
        options: an ``onnxruntime.SessionOptions``; None: those of `session_options`.
        provider: eptx's name of it.

    Raises:
        NotSupportedError: ONNX Runtime is not installed, or the provider does not start on this machine, takes no node
            of this model (the CPU would run all of it), or takes one that it computes wrongly.
        Exception: ONNX Runtime does not load the model; see `wrapped_errors`.
    """
    session = start_session(model, options, provider)
    if not has_started(session, provider):
        raise NotSupportedError(f"provider {provider}: it does not start here; it needs {PROVIDERS[provider].needs}")
    taken = operators_by_provider(session)
    if taken is not None and provider not in taken:
        raise NotSupportedError(f"provider {provider}: it takes no node of this model; the CPU would run all of it")
    wrong = PROVIDERS[provider].wrong & (taken or {}).get(provider, Counter()).keys()
    if wrong:
        names = ", ".join(sorted(wrong))
        raise NotSupportedError(f"provider {provider}: it computes the operator {names} wrongly, and this model has it")
    return session


def start_session(model: bytes | str | os.PathLike[str], options: Any, provider: str) -> Any:
    """An ``onnxruntime.InferenceSession``, perhaps without the provider: see `open_session`, which checks it."""
    ort = onnxruntime()
    options = session_options() if options is None else options
    if provider != CPU:
        ort.set_default_logger_severity(4)  # providers write into the log of the process, not into their session's
        for key, value in REMEMBER_NODES.items():
            options.add_session_config_entry(key, value)
    return ort.InferenceSession(
        model if isinstance(model, bytes) else os.fspath(model),
        options,
        providers=execution_providers(provider, options.intra_op_num_threads or None),
        enable_fallback=0,  # the fallback would try the same again, and print
    )


def open_bundle(
    bundle: Bundle, provider: str, threads: int | None, options: Any = None, *, model: Path | None = None
) -> tuple[Any, Kernels]:
    """An ``onnxruntime.InferenceSession`` on a model of a bundle, and what runs the model's own operators.

    Args:
        bundle: a checked bundle.
        provider: eptx's name of it.
        threads: how many threads one operator may use; None lets ONNX Runtime choose.
        options: an ``onnxruntime.SessionOptions`` to use instead of eptx's, or None.
        model: the model's file; None: ``model.onnx``.

    Raises:
        BundleError: ONNX Runtime does not load the model.
        NotSupportedError: the provider does not start on this machine, does not load the model, or takes no node of it;
            or the bundle needs a newer ONNX Runtime.
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
    text = both_ends(e)
    if isinstance(e, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        return LimitError(f"{what}: not enough memory: {text}")
    return error(f"{what}: {text}")


def load_error(provider: str) -> type[EptxError]:
    """The error of a bundle's model that does not load: only of the CPU provider is it sure that the model is wrong."""
    return BundleError if provider == CPU else NotSupportedError


@contextmanager
def wrapped_errors(what: str, error: type[EptxError]) -> Iterator[None]:
    """A block whose exceptions are `wrapped`: ONNX Runtime has a dozen exception classes and no common one."""
    try:
        yield
    except Exception as e:
        raise wrapped(e, what, error) from None


def _open(bundle: Bundle, model: Path, options: Any, provider: str) -> Any:
    exported_for = bundle.manifest.provider
    hint = f" on provider {provider} (the bundle was exported for {exported_for})" if exported_for != provider else ""
    with wrapped_errors(f"{model.name}: ONNX Runtime does not load it{hint}", load_error(provider)):
        return open_session(model, options, provider)
