"""``calibration.json``: what a calibration was asked, what it tried and what it chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eptx._version import __version__
from eptx.calibration.search.latency import timed_shape
from eptx.calibration.options import CalibrationOptions
from eptx.calibration.quantize import Range
from eptx.calibration.search.search import Found
from eptx.calibration.search.evaluator import Evaluator
from eptx.runtime.machine import machine

SCHEMA_VERSION = 1


def result_json(
    bench: Evaluator,
    found: Found,
    options: CalibrationOptions,
    budget: Mapping[str, float],
    data: str,
    studies: Mapping[str, Any],
) -> dict[str, Any]:
    """A calibration as JSON types.

    Args:
        bench: what it was measured with.
        found: what the search saw.
        options: of the calibration.
        budget: task -> points.
        data: fingerprint of the rows.
        studies: "experts" and "routes", where the adapter has them.
    """
    manifest = bench.reference.manifest
    answers = bench.probe
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": f"eptx {__version__}",
        "mode": manifest.mode,
        "method": manifest.method,
        "model_type": manifest.model_type,
        "tasks": list(bench.rows),
        "fingerprints": {**manifest.fingerprints, "data": data},
        "settings": {
            "goal": options.goal,
            "max_drop": dict(budget),
            "metrics": dict(bench.metrics),
            "rows": {task: len(rows) for task, rows in bench.rows.items()},
            "labelled": {task: answers.labelled(task) for task in bench.rows},
            "data": [source.name for source in options.data],
            "machine": machine(),
            "threads": options.threads,
            "timed": timed_shape(bench.session),
        },
        "sensitivity": _sensitivity(bench, found),
        "ranges": _ranges(bench.known_ranges),
        "trials": [
            trial.to_json() | {"within": trial.within(budget)} for trial in (*found.trials.values(), *found.others)
        ],
        "chosen": found.trials[found.chosen].name,
        "experts": studies.get("experts"),
        "routes": studies.get("routes"),
    }


def _sensitivity(bench: Evaluator, found: Found) -> dict[str, Any] | None:
    """Of the scheme that was repaired, if that was chosen; else of the one that was looked at last."""
    if not found.damage:
        return None
    scheme = found.chosen.scheme if found.chosen.kept else list(found.damage)[-1]
    table = found.damage[scheme]
    groups = [
        {"name": group.name, "products": [*group.products, *group.embeddings], "weights": group.weights}
        for group in bench.groups
    ]
    return {"scheme": scheme, "groups": groups, "damage": dict(table)}


def _ranges(ranges: Mapping[str, Mapping[str, Range]] | None) -> dict[str, Any] | None:
    if ranges is None:
        return None
    return {key: {task: [r.low, r.high] for task, r in own.items()} for key, own in ranges.items()}
