"""The backends on which a bundle can run here; each of them is validated.

A model with operators of its own holds a function body for each. The bodies run in browsers, in Node, in C++ without
kernels, and on every provider but the CPU's. Where the native kernels are installed, they run instead of the bodies; so
both are validated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.manifest.names import EXPORT_PROVIDERS
from eptx.runtime.ort.choice import check_provider, why_not
from eptx.runtime.ort.kernels import Kernels, choose_kernels, register
from eptx.runtime.ort.providers import is_built_in
from eptx.runtime.ort.sessions import bundle_options

Operators = Literal["standard", "functions", "kernels"]


_NONE = Kernels(None)


class KernelsRefusedError(BundleError):
    """The native kernels are installed, but they do not load, or do not run this model."""


@dataclass(frozen=True)
class Backend:
    """A provider, and what runs the model's own operators on it.

    Attributes:
        provider: its name.
        operators: "functions" (the bodies that the model holds), "kernels" (native ones), or "standard" if the model
            has no operators of its own.
        kernels: the library to register; empty unless `operators` is "kernels".
    """

    provider: str
    operators: Operators
    kernels: Kernels = _NONE

    @property
    def name(self) -> str:
        """Its name in reports."""
        return backend_name(self.provider, self.operators)

    def session_options(self, bundle: Bundle) -> Any:
        """The ``onnxruntime.SessionOptions`` of its sessions.

        Raises:
            KernelsRefusedError: the kernels' library does not load.
        """
        options = bundle_options(bundle)
        if self.kernels.library is not None:
            found = register(options, self.kernels)
            if found.library is None:  # the session would still open, and run the functions a second time
                raise KernelsRefusedError(str(found.reason))
        return options


def backend_name(provider: str, operators: Operators) -> str:
    """``cpu``, or ``cpu, functions`` for a model with operators of its own."""
    return provider if operators == "standard" else f"{provider}, {operators}"


def backends(bundle: Bundle, providers: Sequence[str]) -> list[Backend]:
    """Every backend of these providers. Functions come first: they run wherever the model does."""
    return [backend for provider in providers for backend in _of_provider(bundle, provider)]


def _of_provider(bundle: Bundle, provider: str) -> Iterator[Backend]:
    own = bool(bundle.operators)
    yield Backend(provider, "functions" if own else "standard")
    kernels = choose_kernels(bundle, provider)
    if own and kernels.library is not None:
        yield Backend(provider, "kernels", kernels)


def providers_to_validate(wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """The providers to run on, and why ``auto`` left one out; it stands for all that it can mean to a session.

    Raises:
        NotSupportedError: this machine lacks one that is named.
    """
    usable: dict[str, None] = {}
    left_out = []
    for name in wanted:
        if name != "auto":
            check_provider(name)
            usable[name] = None
            continue
        for provider in filter(is_built_in, EXPORT_PROVIDERS):
            why = why_not(provider)
            if why is None:
                usable[provider] = None
            else:
                left_out.append(f"provider {provider}: not validated: {why}")
    return list(usable), left_out
