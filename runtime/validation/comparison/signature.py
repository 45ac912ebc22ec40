"""A bundle's outputs and adapted modules: it must have those of the trained model, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eptx.bundle import Manifest
from eptx.manifest.names import PRESENT, USED
from eptx.runtime.validation.check import Check
from eptx.runtime.validation.expectation import Expectation


def may_compute_in_half(manifest: Manifest) -> bool:
    """Whether the outputs may be float16: fp16 and quantized bundles for CUDA. Others compute in float32."""
    return manifest.provider == "cuda" and manifest.precision != "fp32"


def check_signature(manifest: Manifest, expectation: Expectation[Any]) -> Iterator[Check]:
    """A check for every output and every adapted module, of the trained model and of the bundle."""
    yield from _outputs(manifest, expectation)
    yield from _modules(manifest, expectation)


def _outputs(manifest: Manifest, expectation: Expectation[Any]) -> Iterator[Check]:
    found = [o for o in manifest.outputs if not o.name.startswith(PRESENT) and not o.name.endswith(USED)]
    has, dtypes = [o.name for o in found], {o.name: o.dtype for o in found}
    first = expectation.batches[0]
    for name in first.outputs:
        wrong = None
        if name not in has:
            wrong = (
                f"the bundle has no such output; a {expectation.class_name} returns it (the bundle has {_listed(has)})"
            )
        elif dtypes[name] != "float32" and not (dtypes[name] == "float16" and may_compute_in_half(manifest)):
            wrong = f"is {dtypes[name]}; the trained model's is float32"
        yield Check(f"output {name}", "run", wrong)
    for name in has:
        if name in first.inner:
            yield Check(f"output {name}", "run")
        elif name not in first.outputs:
            yield Check(f"output {name}", "unchecked", None, f"a {expectation.class_name} has no such output")


def _modules(manifest: Manifest, expectation: Expectation[Any]) -> Iterator[Check]:
    said = {*manifest.modules, *(manifest.encoder.modules if manifest.encoder is not None else {})}
    for name in expectation.modules:
        wrong = None if name in said else "the adapter adapts it, and eptx.json does not say where it is in the graph"
        yield Check(f"module {name}", "run", wrong)
    for name in sorted(said - {*expectation.modules}):
        yield Check(f"module {name}", "run", "eptx.json names it, and the adapter does not adapt it")


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "none"
