"""``eptx validate``: compares a bundle with the trained model and writes the report into it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle, read_bundle, write_report
from eptx.exporter.bases.weights.model import read_config
from eptx.exporter.validation.accuracy.accuracy_drop import accuracy_drops, named_texts, plan_drops, unbudgeted_tasks
from eptx.exporter.validation.accuracy.activation_ranges import check_ranges
from eptx.exporter.validation.accuracy.budget import BudgetedDrop
from eptx.exporter.validation.accuracy.divergence import Divergence, divergences
from eptx.exporter.validation.base.lookups import Lookups
from eptx.exporter.validation.bundle.backends import Backend, KernelsRefusedError, backends
from eptx.exporter.validation.bundle.instrumented import InstrumentedModel, instrument
from eptx.exporter.validation.bundle.models import open_shipped
from eptx.exporter.validation.comparison.compare import compare_with_reference
from eptx.exporter.validation.comparison.results import BackendReport
from eptx.exporter.validation.comparison.signature import check_signature
from eptx.exporter.validation.contents.compare import compare_contents
from eptx.exporter.validation.inputs.inputs import Inputs, PromptInputs
from eptx.exporter.validation.inputs.user_data import from_data, read_texts
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.quantized.weights import QuantizedWeights
from eptx.exporter.validation.reference.expectation import Expectation, row_tasks, run_reference
from eptx.exporter.validation.reference.files import find_reference, with_origin
from eptx.exporter.validation.report.page import report_html
from eptx.exporter.validation.report.report import Report
from eptx.exporter.validation.report.timings import StageTimes
from eptx.files.strict_json import dump_json
from eptx.manifest.names import EXPORT_PROVIDERS
from eptx.progress import step
from eptx.runtime.ort.choice import check_provider, why_not
from eptx.runtime.ort.providers import is_built_in


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
    (providers, left_out), planned = _providers(options.providers), plan_drops(bundle, options, origin.data)
    with step("reading the adapter"), seconds.of("reading the adapter"):
        reference = find_reference(bundle.manifest, options)
    config = read_config(reference.base)
    names = row_tasks(bundle.manifest, reference)
    rows = read_texts(options, names)
    usable = backends(bundle, providers)
    with step("comparing with the base and the adapter"), seconds.of("comparing"):
        compared = compare_contents(bundle, reference, options.base_onnx)
        checks = compared.checks
    home = next(iter(reference.homes), None)
    inputs = _inputs(bundle, config, reference.base, compared.found, home, usable[0])
    with seconds.of("drawing inputs"):
        batches = inputs.batches(rows, names)
        instrumented = instrument(bundle)
        quantized = QuantizedWeights.of(bundle)
    with seconds.of("running the reference"):
        expectation = run_reference(bundle.manifest, reference, batches, inputs.redraw, quantized)
    results, refused = _run_backends(bundle, instrumented, expectation, usable, seconds)
    ran = [expected.batch for expected in expectation.batches]
    drops: list[BudgetedDrop] = []
    diverged: list[Divergence] = []
    if quantized is not None:
        with seconds.of("measuring what quantizing loses"):
            drops = accuracy_drops(bundle, reference, options, planned, providers[0])
            diverged = divergences(bundle, reference, ran, unbudgeted_tasks(bundle, drops), usable[-1])
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
    _write(bundle, report)
    return report


def _run_backends(
    bundle: Bundle,
    instrumented: InstrumentedModel,
    expectation: Expectation,
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


def _inputs(
    bundle: Bundle, config: dict[str, Any], base: Path, found: Lookups, home: Path | None, backend: Backend
) -> Inputs:
    if bundle.manifest.generation is None:
        return Inputs(bundle, config, base, found, home)
    model = cache(lambda: open_shipped(bundle, backend))
    return PromptInputs(bundle, config, base, found, home, lambda batch: model().answer(batch))


def _providers(wanted: Sequence[str]) -> tuple[list[str], list[str]]:
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


def _write(bundle: Bundle, report: Report) -> None:
    write_report(bundle, "validation.json", dump_json(report.to_json()))
    write_report(bundle, "report.html", report_html(report).encode())
