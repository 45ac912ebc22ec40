"""``eptx validate``: compares a bundle with the trained model and writes the report into it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle, read_bundle
from eptx.exporter.bases.weights.model import read_config
from eptx.exporter.validation.accuracy.accuracy_drop import accuracy_drops, named_texts, plan_drops, unbudgeted_tasks
from eptx.exporter.validation.accuracy.activation_ranges import check_ranges
from eptx.exporter.validation.accuracy.divergence import divergences
from eptx.exporter.validation.base.lookups import Lookups
from eptx.exporter.validation.contents.compare import compare_contents
from eptx.exporter.validation.inputs.inputs import Inputs, PromptInputs
from eptx.exporter.validation.inputs.user_data import from_data, read_texts
from eptx.exporter.validation.instrument import instrument
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.quantized.weights import QuantizedWeights
from eptx.exporter.validation.reference.expectation import row_tasks, run_reference
from eptx.exporter.validation.reference.files import find_reference, with_origin
from eptx.progress import step
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.comparison.every_backend import compare_on_every_backend
from eptx.runtime.validation.comparison.signature import check_signature
from eptx.runtime.validation.proof.record import columns_for, record_proof
from eptx.runtime.validation.quantizing import BudgetedDrop, Divergence
from eptx.runtime.validation.report.report import Report
from eptx.runtime.validation.report.write import write_validation
from eptx.runtime.validation.running.backends import Backend, backends, providers_to_validate
from eptx.runtime.validation.running.models import open_shipped
from eptx.runtime.validation.timings import StageTimes


def validate_bundle(path: Path, options: ValidateOptions | None = None) -> Report:
    """Compares a bundle with its trained model and writes ``validation.json`` and ``report.html`` into it.

    Args:
        path: the bundle.
        options: where the base and adapter are, on which providers and data to validate.

    Returns:
        the report; ``passed`` says whether the bundle computes what the trained model computes, and, if it is
        quantized, whether the loss is within its budget.

    Raises:
        BundleError: the bundle is damaged.
        UsageError: the base or adapter is not where the export found it and was not given, or the options do not fit.
        AdapterError, BaseModelError, DataError: their files are damaged or do not fit.
        NotSupportedError: this machine lacks a provider that is named, or the provider does not load the bundle.
    """
    options = options or ValidateOptions()
    options.check()
    seconds = StageTimes()
    with step("checking the bundle"), seconds.of("checking the bundle"):
        bundle = read_bundle(path)
    options, origin = with_origin(bundle, options)
    (providers, left_out), planned = providers_to_validate(options.providers), plan_drops(bundle, options, origin.data)
    with step("reading the adapter"), seconds.of("reading the adapter"):
        reference = find_reference(bundle.manifest, options)
    config = read_config(reference.base)
    names = row_tasks(bundle.manifest, reference)
    rows = read_texts(options, names)
    usable = backends(bundle, providers)
    with step("comparing with the base and the adapter"), seconds.of("comparing"):
        compared = compare_contents(bundle, reference, options.base_onnx)
        checks = compared.checks
        reference.release_models()
    home = next(iter(reference.homes), None)
    inputs = _inputs(bundle, config, reference.base, compared.found, home, usable[0])
    with seconds.of("drawing inputs"):
        batches = inputs.batches(rows, names)
        instrumented = instrument(bundle)
        quantized = QuantizedWeights.of(bundle)
        recorded = options.record is not None
        columns = columns_for(bundle.manifest, batches, instrumented, options.record_bytes) if recorded else None
    with seconds.of("running the reference"):
        expectation = run_reference(bundle.manifest, reference, batches, inputs.redraw, quantized, columns)
    results, refused = compare_on_every_backend(bundle, instrumented, expectation, usable, seconds)
    ran = [expected.batch for expected in expectation.batches]
    drops: list[BudgetedDrop] = []
    diverged: list[Divergence] = []
    if quantized is not None:
        with seconds.of("measuring what quantizing loses"):
            drops = accuracy_drops(bundle, reference, options, planned, providers[0])
            worked = [backend for backend in usable if backend.name in {result.name for result in results}]
            diverged = divergences(bundle, reference, ran, unbudgeted_tasks(bundle, drops), worked[-1])
            rows = named_texts(planned) if bundle.manifest.generation is None else {}
            texts = partial(from_data, bundle, rows, reference.base, compared.found.longest, home)
            checks += [*quantized.checks, *check_ranges(bundle, ran, usable[0], texts)]
    report = Report(
        manifest=bundle.manifest,
        batches=ran,
        redrawn=expectation.redrawn,
        live=expectation.live,
        providers=results,
        drops=drops,
        divergences=diverged,
        warnings=[*reference.warnings, *left_out, *refused, *planned.unmeasured],
        checks=[*checks, *check_signature(bundle.manifest, expectation), *inputs.untried()],
        seconds=seconds,
    )
    write_validation(bundle, report)
    if options.record is not None and report.passed:
        with step("recording the proof"):
            record_proof(options.record, bundle, report, expectation, instrumented)
    return report


def _inputs(
    bundle: Bundle, config: dict[str, Any], base: Path, found: Lookups, home: Path | None, backend: Backend
) -> Inputs:
    if bundle.manifest.generation is None:
        return Inputs(bundle, config, base, found, home)

    def answers(batches: Sequence[Batch]) -> list[Batch]:
        if not batches:
            return []
        model = open_shipped(bundle, backend)  # and closed behind it: the reference is next
        return [model.answer(batch) for batch in batches]

    return PromptInputs(bundle, config, base, found, home, answers)
