"""Bundles whose products are stored by a scheme of the test's choice."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from eptx.bundle import Bundle, BundleWriter, Quantization
from eptx.calibration.quantize import Quantizer, Range, Recipe, Scheme
from eptx.calibration.quantize.ranges import observe_ranges, union
from eptx.exporter.bases.weights.model import read_config
from eptx.exporter.bundle.write import Adapted
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.options import ExportOptions, StoredPrecision
from eptx.exporter.steps.export import adapt, store, write
from eptx.runtime.measure import Row, Source

#: What an export of that scheme calls its precision.
_PRECISIONS: dict[str, StoredPrecision] = {"int8": "int8", "int8-static": "int8-static", "int4-blocks": "int4"}
#: Wide enough for the activations of an encoder-decoder, whose ranges eptx does not observe.
_RANGE = Range(-8.5, 8.5)

Choice = Scheme | Callable[[int], Scheme]


def quantized(
    base: Path,
    adapters: Sequence[Path],
    out: Path,
    options: ExportOptions,
    scheme: Choice,
    *,
    bounds: Range | None = None,
    **said: Any,
) -> Bundle:
    """A bundle whose products and tables, however small, are quantized.

    Args:
        base: the transformers folder.
        adapters: the adapter's folders.
        out: the bundle's.
        options: of the export, but the precision.
        scheme: of every product, or what gives that of the product of a number.
        bounds: what activations are rounded in, where they are statically; None: what they are on random rows.
        said: what the manifest says of budget, metrics, data and rows.
    """
    same = isinstance(scheme, str)
    precision: StoredPrecision = _PRECISIONS.get(scheme, "mixed") if isinstance(scheme, str) else "mixed"
    adapter = read_adapter(adapters, top_k=options.top_k, tasks=options.tasks)
    with BundleWriter(out) as writer, tempfile.TemporaryDirectory() as workspace:
        with mock.patch("eptx.exporter.bases.products.embeddings._MIN_SIZE", 1000):
            adapted = adapt(base, adapter, options, Path(workspace))
        seen = _seen(adapted, base, Path(workspace)) if bounds is None and (not same or scheme == "int8-static") else {}
        products: dict[str, str] = {}
        tables: dict[str, str] = {}
        for edited in adapted.graphs:
            choose = (lambda index: scheme) if same else scheme
            recipe = Recipe(
                {name: choose(index) for index, name in enumerate(edited.products)},  # type: ignore[misc,operator]
                dict.fromkeys(edited.embeddings, "int8"),
                seen if bounds is None else dict.fromkeys(edited.products, bounds),
            )
            Quantizer()(edited.graph.model.graph, recipe)
            prefix = "" if edited.graph.file == "model.onnx" else f"{edited.graph.file.removesuffix('.onnx')}:"
            products |= {f"{prefix}{name}": own for name, own in recipe.products.items()}
            tables |= {f"{prefix}{name}": own for name, own in recipe.embeddings.items()}
        data = [(source.task, Path(str(source.rows))) for source in map(Source.parse, said.pop("data", ()))]
        quantization = Quantization(products, tables, **said)
        adapted = replace(adapted, precision=precision, data=data, quantization=quantization)
        store(adapted)
        return write(writer, adapted)


def _seen(adapted: Adapted, base: Path, folder: Path) -> dict[str, Range]:
    """What every product reads of random rows."""
    if len(adapted.graphs) > 1:
        return dict.fromkeys((name for edited in adapted.graphs for name in edited.products), _RANGE)
    size, rng = read_config(base)["vocab_size"], np.random.default_rng(9)
    tasks = adapted.adapter.tasks if adapted.options.task is None else [adapted.options.task]
    rows = {task: [Row(task, input_ids=tuple(rng.integers(3, size, 16).tolist())) for _ in range(8)] for task in tasks}
    return {name: union(ranges) for name, ranges in observe_ranges(adapted, rows, folder / "seen", 1).items()}
