"""``eptx validate``: from a bundle to a report in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle, Manifest, read_bundle, write_report
from eptx.errors import NotSupportedError
from eptx.exporter.bases.weights.model import read_config
from eptx.exporter.validation.accuracy.accuracy_drop import losses, named_texts, plan, unjudged
from eptx.exporter.validation.accuracy.activation_ranges import range_parts
from eptx.exporter.validation.accuracy.budget import Judged
from eptx.exporter.validation.accuracy.divergence import Divergence, divergences
from eptx.exporter.validation.bundle.backends import KernelsRefusedError, Way, ways
from eptx.exporter.validation.bundle.instrumented import Graph, observable
from eptx.exporter.validation.comparison.compare import judge
from eptx.exporter.validation.comparison.signature import outline
from eptx.exporter.validation.contents.compare import compare_parts
from eptx.exporter.validation.inputs.batch import Batch
from eptx.exporter.validation.inputs.inputs import Inputs, PromptInputs
from eptx.exporter.validation.inputs.user_data import from_data, read_texts
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.quantized.weights import Quantized
from eptx.exporter.validation.reference.expectation import Expectation, expect, row_tasks
from eptx.exporter.validation.reference.files import find_truth, with_origin
from eptx.exporter.validation.report.page import report_html
from eptx.exporter.validation.report.report import ProviderReport, Report
from eptx.exporter.validation.timings import Seconds
from eptx.files.strict_json import dump_json
from eptx.progress import step
from eptx.runtime.ort.providers import choose_provider


def validate_bundle(path: Path, options: ValidateOptions | None = None) -> Report:
    """Holds a bundle against its trained model and writes ``validation.json`` and ``report.html`` into it.

    Args:
        path: the bundle.
        options: where the base and adapter are, on which providers and data to validate.

    Returns:
        the report; ``passed`` says whether the bundle computes what the trained model computes, and, if it is
        quantized, whether what it loses by that is within its budget.

    Raises:
        BundleError: the bundle is damaged.
        UsageError: the base or adapter is not where the export found it and was not given, or the options do not fit.
        AdapterError, BaseModelError, DataError: their files are damaged or do not fit.
        NotSupportedError: a provider that was asked for is not on this machine.
    """
    options = options or ValidateOptions()
    options.check()
    seconds = Seconds()
    with step("checking the bundle"), seconds.of("checking the bundle"):
        bundle = read_bundle(path)
    options, origin = with_origin(bundle, options)
    providers, planned = _providers(options.providers), plan(bundle, options, origin.data)
    with step("reading the adapter"), seconds.of("reading the adapter"):
        truth = find_truth(bundle.manifest, options)
    config = read_config(truth.base)
    names = row_tasks(bundle.manifest, truth)
    rows = read_texts(options, names)
    found = ways(bundle, providers)
    with step("comparing with the base and the adapter"), seconds.of("comparing"):
        compared = compare_parts(bundle, truth, options.base_onnx)
        parts = compared.parts
    inputs = _inputs(bundle, config, truth.base, compared.longest, found[0])
    with seconds.of("drawing inputs"):
        batches = inputs.batches(rows, names)
        graph = observable(bundle)
        quantized = Quantized.of(bundle)
    with seconds.of("running the reference"):
        expectation = expect(bundle.manifest, truth, batches, inputs.redraw, quantized)
    judged, refused = _judged(bundle, graph, expectation, found, seconds)
    drops: list[Judged] = []
    apart: list[Divergence] = []
    if quantized is not None:
        with seconds.of("measuring what quantizing loses"):
            tried = [expected.batch for expected in expectation.batches]
            drops = losses(bundle, truth, options, planned, providers[0])
            apart = divergences(bundle, truth, tried, unjudged(bundle, drops), found[-1])
            rows = named_texts(planned) if bundle.manifest.generation is None else {}
            texts = partial(from_data, bundle, rows, truth.base, compared.longest)
            parts += [*quantized.parts, *range_parts(bundle, tried, found[0], texts)]
    report = Report(
        bundle=_facts(bundle.manifest),
        inputs=[_described(expected.batch) for expected in expectation.batches],
        redrawn=expectation.redrawn,
        live=expectation.live,
        providers=judged,
        drops=drops,
        divergences=apart,
        warnings=[*truth.warnings, *refused, *planned.unmeasured],
        parts=[*parts, *outline(bundle.manifest, expectation), *inputs.untried()],
        seconds=seconds,
    )
    _write(bundle, report)
    return report


def _judged(
    bundle: Bundle, graph: Graph, expectation: Expectation, found: Sequence[Way], seconds: Seconds
) -> tuple[list[ProviderReport], list[str]]:
    """A report for every way, and why kernels that are installed were not judged: then they do not run it either."""
    judged, refused = [], []
    for way in found:
        try:
            with seconds.of(f"running the bundle ({way.name})"):
                judged.append(judge(bundle, graph, expectation, way))
        except KernelsRefusedError as error:
            refused.append(f"{way.name}: not judged, the bundle runs by its functions: {error}")
    return judged, refused


def _inputs(bundle: Bundle, config: dict[str, Any], base: Path, longest: int | None, way: Way) -> Inputs:
    if bundle.manifest.generation is None:
        return Inputs(bundle, config, base, longest)
    return PromptInputs(bundle, config, base, longest, way)


def _providers(wanted: Sequence[str]) -> list[str]:
    """What to run on; ``auto`` is every provider that is here.

    Raises:
        NotSupportedError: one that was asked for by name is not.
    """
    found: dict[str, None] = {}
    for name in wanted:
        if name != "auto":
            found[choose_provider(name, name)] = None
            continue
        found["cpu"] = None
        try:
            found[choose_provider("cuda", "cuda")] = None
        except NotSupportedError:
            continue
    return list(found)


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "mode": manifest.mode,
        "method": manifest.method,
        "model_type": manifest.model_type,
        "precision": manifest.precision,
        "provider": manifest.provider,
        "routing": manifest.routing,
        "tasks": [task.name for task in manifest.tasks],
        "fingerprints": dict(manifest.fingerprints),
        "generator": manifest.generator,
    }


def _described(batch: Batch) -> Mapping[str, Any]:
    shape = list(next(iter(batch.arrays.values())).shape)
    kept = batch.kept
    padded = bool(kept is not None and not kept.all())
    return {"name": batch.name, "shape": shape, "padded": padded, "prompt": batch.prompt}


def _write(bundle: Bundle, report: Report) -> None:
    write_report(bundle, "validation.json", dump_json(report.to_json()))
    write_report(bundle, "report.html", report_html(report).encode())
