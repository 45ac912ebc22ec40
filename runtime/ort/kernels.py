"""Chooses whether a session's ``ai.eptx`` operators run as native kernels or as the model's own functions.

The kernels' library stands in the folder above, if it was built. ONNX Runtime prefers a registered operator to the
model's function of that name in every node, so the library is registered only for sessions that it covers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from eptx._one_line import one_line
from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.manifest.names import OPERATOR_DOMAIN
from eptx.providers import PROVIDERS

#: The session entry that tells the library which operators to register: each costs time and memory.
OPERATORS_ENTRY = f"{OPERATOR_DOMAIN}.operators"
_LIBRARY = {"win32": "eptx_ops.dll", "darwin": "libeptx_ops.dylib"}.get(sys.platform, "libeptx_ops.so")

_Opened = TypeVar("_Opened")


@dataclass(frozen=True)
class Kernels:
    """What runs the operators.

    Attributes:
        library: the native kernels, or None: the model's own functions run.
        reason: why there are none.
        operators: that the model calls.
    """

    library: Path | None
    reason: str | None = None
    operators: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Whether they run, and why not, as JSON types."""
        return {"running": self.library is not None, "reason": self.reason}


def choose_kernels(bundle: Bundle, provider: str) -> Kernels:
    """The kernels for a bundle's session on a provider."""
    library = kernel_library()
    if bundle.manifest.operators is None:
        return Kernels(None, "the bundle has standard operators only")
    if os.environ.get("EPTX_NATIVE") == "0":
        return Kernels(None, "switched off by EPTX_NATIVE=0")
    if not PROVIDERS[provider].kernels:
        return Kernels(None, f"there are none for provider {provider}")
    if library is None:
        return Kernels(None, "eptx was installed without them: runs take 1.2 to 1.8 times as long; see docs/install.md")
    return Kernels(library, operators=bundle.operators)


def open_with_kernels(bundle: Bundle, provider: str, open_model: Callable[[Kernels], _Opened]) -> _Opened:
    """Opens a model with the kernels, or without any if it does not load with them.

    Args:
        bundle: a checked bundle.
        provider: eptx's name of it.
        open_model: opens the model to run with these kernels; raises a `BundleError` if it does not load.
    """
    kernels = choose_kernels(bundle, provider)
    if kernels.library is not None:
        try:
            return open_model(kernels)
        except BundleError as e:  # the model's functions may know types that the kernels do not
            kernels = Kernels(None, f"they do not run this model: {e}")
    return open_model(kernels)


def kernel_library() -> Path | None:
    """The library for ``onnxruntime.SessionOptions.register_custom_ops_library``; None where it was not built."""
    path = Path(__file__).parents[1] / _LIBRARY
    return path if path.is_file() else None


def register(options: Any, kernels: Kernels) -> Kernels:
    """Makes sessions with `options` use the kernels; returns what they will use: none if the library does not load."""
    if kernels.library is None:
        return kernels
    options.add_session_config_entry(OPERATORS_ENTRY, ",".join(sorted(kernels.operators)))
    try:
        options.register_custom_ops_library(str(kernels.library))
    except Exception as e:  # ONNX Runtime has a dozen exception classes and no common one
        return Kernels(None, f"{kernels.library.name} does not load: {one_line(e)}")
    return kernels
