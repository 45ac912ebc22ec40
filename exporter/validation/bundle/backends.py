"""The ways in which a bundle can be run here, each of which is judged.

A model with operators of its own holds a function body for each: what runs in browsers, in Node, on CUDA and in C++
without kernels. Where the native kernels are installed they run instead, and then nothing is seen of the bodies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.runtime.ort.kernels import Kernels, choose_kernels, register
from eptx.runtime.ort.sessions import bundle_options

Operators = Literal["standard", "functions", "kernels"]


_NONE = Kernels(None)


class KernelsRefusedError(BundleError):
    """The native kernels are installed, and do not load or do not take this model."""


@dataclass(frozen=True)
class Way:
    """One way to run a bundle.

    Attributes:
        provider: ``cpu`` or ``cuda``.
        operators: what the model's own operators run as: the "functions" that it holds, or native "kernels";
            "standard" if it has none.
        kernels: the library to register; none in it unless `operators` says kernels.
    """

    provider: str
    operators: Operators
    kernels: Kernels = _NONE

    @property
    def name(self) -> str:
        """What reports call it."""
        return way_name(self.provider, self.operators)

    def session_options(self, bundle: Bundle) -> Any:
        """The ``onnxruntime.SessionOptions`` for it.

        Raises:
            KernelsRefusedError: the kernels' library does not load.
        """
        options = bundle_options(bundle)
        if self.kernels.library is not None:
            found = register(options, self.kernels)
            if found.library is None:  # the session would open all the same, and run the functions once more
                raise KernelsRefusedError(str(found.reason))
        return options


def way_name(provider: str, operators: Operators) -> str:
    """``cpu``, or ``cpu, functions`` where there is another way."""
    return provider if operators == "standard" else f"{provider}, {operators}"


def ways(bundle: Bundle, providers: Sequence[str]) -> list[Way]:
    """Every way for these providers, functions first: they run wherever the model does."""
    return [way for provider in providers for way in _of_provider(bundle, provider)]


def _of_provider(bundle: Bundle, provider: str) -> Iterator[Way]:
    own = bool(bundle.operators)
    yield Way(provider, "functions" if own else "standard")
    kernels = choose_kernels(bundle, provider)
    if own and kernels.library is not None:
        yield Way(provider, "kernels", kernels)
