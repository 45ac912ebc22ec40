"""Compares a bundle with an expectation on every backend that this machine has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eptx.bundle import Bundle
from eptx.runtime.validation.comparison.compare import compare_with_reference
from eptx.runtime.validation.comparison.results import BackendReport
from eptx.runtime.validation.expectation import Expectation
from eptx.runtime.validation.running.backends import Backend, KernelsRefusedError
from eptx.runtime.validation.running.instrumented import InstrumentedModel
from eptx.runtime.validation.timings import StageTimes


def compare_on_every_backend(
    bundle: Bundle,
    instrumented: InstrumentedModel,
    expectation: Expectation[Any],
    usable: Sequence[Backend],
    seconds: StageTimes,
) -> tuple[list[BackendReport], list[str]]:
    """A report for every backend, and why installed kernels were left out: they do not run this bundle."""
    results, refused = [], []
    for backend in usable:
        try:
            with seconds.of(f"running the bundle ({backend.name})"):
                results.append(compare_with_reference(bundle, instrumented, expectation, backend))
        except KernelsRefusedError as error:
            refused.append(f"{backend.name}: not validated; the bundle runs by its functions: {error}")
    return results, refused
