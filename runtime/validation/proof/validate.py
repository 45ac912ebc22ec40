"""Validates a bundle by a proof of it: the verdicts of a validation, without the trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eptx.bundle import Bundle, check_graph, read_bundle
from eptx.progress import step
from eptx.runtime.validation.comparison.every_backend import compare_on_every_backend
from eptx.runtime.validation.proof.binding import check_same
from eptx.runtime.validation.proof.content import read_proof
from eptx.runtime.validation.report.report import Report
from eptx.runtime.validation.report.write import write_validation
from eptx.runtime.validation.running.backends import backends, providers_to_validate
from eptx.runtime.validation.running.instrumented import InstrumentedModel
from eptx.runtime.validation.timings import StageTimes


def validate_against_proof(path: Path, proof: Path, providers: Sequence[str] = ("auto",)) -> Report:
    """Compares a bundle with what was proved of it, and writes ``validation.json`` and ``report.html`` into it.

    It runs what `eptx.exporter.validation.validate_bundle` runs, on this machine, and needs numpy and ONNX Runtime
    alone. What that compared with the files of base and adapter, the proof repeats: it holds as long as the bundle's
    files are the same.

    Args:
        path: the bundle.
        proof: the file that ``eptx validate --record`` has written.
        providers: where to run, as in `ValidateOptions`.

    Returns:
        the report; ``passed`` says whether the bundle computes here what the trained model computes.

    Raises:
        BundleError: the bundle is damaged, or the proof adds to its graphs what no bundle may hold.
        DataError: the proof is damaged, or one of another bundle.
        NotSupportedError: this machine lacks a provider that is named.
    """
    seconds = StageTimes()
    with step("checking the bundle"), seconds.of("checking the bundle"):
        bundle = read_bundle(path)
    with step("reading the proof"), seconds.of("reading the proof"):
        known = read_proof(proof)
        _check_graphs(known.instrumented, bundle)
        checks = [*known.checks, *check_same(proof, known.bundle, bundle)]
    usable_providers, left_out = providers_to_validate(providers)
    usable = backends(bundle, usable_providers)
    expectation = known.expectation
    results, refused = compare_on_every_backend(bundle, known.instrumented, expectation, usable, seconds)
    report = Report(
        manifest=bundle.manifest,
        batches=[proved.batch for proved in expectation.batches],
        redrawn=expectation.redrawn,
        live=None,
        providers=results,
        drops=known.drops,
        divergences=known.divergences,
        warnings=[*left_out, *refused],
        checks=checks,
        seconds=seconds,
        proof=known.generator,
    )
    write_validation(bundle, report)
    return report


def _check_graphs(instrumented: InstrumentedModel, bundle: Bundle) -> None:
    """What a proof adds to a bundle's models may refer to nothing that these may not refer to."""
    encoder = bundle.manifest.encoder
    parts = {bundle.model.name: instrumented}
    if encoder is not None and instrumented.encoder is not None:
        parts[encoder.file] = instrumented.encoder
    for name, part in parts.items():
        for graph in (part.added, part.float_activations):
            if graph is not None:
                check_graph(name, graph, bundle.manifest)
