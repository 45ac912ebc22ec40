"""``eptx validate``: from a bundle to a report in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eptx._json import dump_json
from eptx._manifest import PRESENT, USED
from eptx._progress import step
from eptx.bundle import Bundle, Manifest, read_bundle, write_report
from eptx.errors import NotSupportedError
from eptx.exporter.base._model import read_config
from eptx.exporter.validation.batches import Batch
from eptx.exporter.validation.expect import Expectation, expect, row_tasks
from eptx.exporter.validation.html import report_html
from eptx.exporter.validation.inputs import Inputs, PromptInputs
from eptx.exporter.validation.judge import judge
from eptx.exporter.validation.losses import losses, plan, unjudged
from eptx.exporter.validation.observe import observable
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.quantised import Quantised
from eptx.exporter.validation.quantized.divergence import divergences
from eptx.exporter.validation.quantized.ranges import range_parts
from eptx.exporter.validation.report import Report
from eptx.exporter.validation.sources import find_truth
from eptx.runtime._providers import choose_provider


def validate_bundle(path: Path, options: ValidateOptions | None = None) -> Report:
    """Holds a bundle against its trained model and writes ``validation.json`` and ``report.html`` into it.

    Args:
        path: the bundle.
        options: where the base and adapter are, on which providers and data to validate.

    Returns:
        the report; ``passed`` says whether the bundle computes what the trained model computes, and, if it is
        quantised, whether what it loses by that is within its budget.

    Raises:
        BundleError: the bundle is damaged.
        UsageError: the base or adapter is not where the export found it and was not given, or the options do not fit.
        AdapterError, BaseModelError, DataError: their files are damaged or do not fit.
        NotSupportedError: a provider that was asked for is not on this machine.
    """
    options = options or ValidateOptions()
    options.check()
    with step("checking the bundle"):
        bundle = read_bundle(path)
    providers, planned = _providers(options.providers), plan(bundle, options)
    with step("reading the adapter"):
        truth = find_truth(bundle.manifest, options)
    config = read_config(truth.base)
    names = row_tasks(bundle.manifest)
    inputs = _inputs(bundle, config, providers[0])
    graph = observable(bundle)
    quantised = Quantised.of(bundle)
    expectation = expect(bundle.manifest, truth, inputs.batches(options, names), inputs.redraw, quantised)
    judged = [judge(bundle, graph, expectation, provider) for provider in providers]
    drops = losses(bundle, truth, options, planned, providers[0])
    batches = [expected.batch for expected in expectation.batches]
    report = Report(
        bundle=_facts(bundle.manifest),
        inputs=[_described(expected.batch) for expected in expectation.batches],
        redrawn=expectation.redrawn,
        live=expectation.live,
        providers=judged,
        drops=drops,
        divergences=divergences(bundle, truth, batches, unjudged(bundle, drops), providers[0]),
        parts=[*quantised.parts, *range_parts(bundle, batches, providers[0])] if quantised is not None else [],
        warnings=[*truth.warnings, *_not_compared(bundle.manifest, expectation), *planned.unmeasured],
    )
    _write(bundle, report)
    return report


def _inputs(bundle: Bundle, config: dict[str, Any], provider: str) -> Inputs:
    return Inputs(bundle, config) if bundle.manifest.generation is None else PromptInputs(bundle, config, provider)


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


def _not_compared(manifest: Manifest, expectation: Expectation) -> list[str]:
    seen = [o.name for o in manifest.outputs if not o.name.startswith(PRESENT) and not o.name.endswith(USED)]
    return [
        f"output {name}: the reference has none, so it is not judged"
        for name in seen
        if name not in expectation.batches[0].outputs
    ]


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
