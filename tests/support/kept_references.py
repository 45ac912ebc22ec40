"""Keeps what the reference computes: it is most of the time of validating a small bundle, and no part of the bundle.

The same sources, inputs and ``eptx.json`` give the same values. This is for tests that damage a bundle in many
ways and leave its sources alone; its graph and its weights never reach the reference, but those of a quantized bundle,
whose reference runs each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from eptx.bundle import Manifest
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.expectation import Expectation


@contextmanager
def kept_references() -> Iterator[None]:
    """While it lasts, the reference runs once for everything that it reads."""
    from eptx.exporter.validation import run

    plain, kept = run.run_reference, dict[str, Expectation[np.ndarray]]()

    def once(manifest: Manifest, reference: Any, batches: Any, redraw: Any, quantized: Any, columns: Any) -> Any:
        if quantized is not None:
            return plain(manifest, reference, batches, redraw, quantized, columns)
        key = _key(manifest, reference, batches, columns)
        if key not in kept:
            kept[key] = plain(manifest, reference, batches, redraw, quantized, columns)
        return kept[key]  # which nobody changes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_reference", once)
        yield


def _key(manifest: Manifest, reference: Any, batches: Sequence[Batch], columns: int | None) -> str:
    said = manifest.to_json() | {"files": None}  # whose hashes change with the graph and the weights
    sources = {name: value for name, value in vars(reference).items() if name != "files"}
    hashed = hashlib.sha256(repr((said, sources, columns)).encode())
    for batch in batches:
        hashed.update(repr({**vars(batch), "arrays": None}).encode())
        for name, array in sorted(batch.arrays.items()):
            hashed.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()
