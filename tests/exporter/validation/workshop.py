"""Exports and validations of one base, with what is slow about them done once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import onnx_ir as ir

from eptx.bundle import Bundle, Manifest, read_bundle
from eptx.calibration import export_bundle
from eptx.errors import BundleError
from eptx.exporter import ExportOptions
from eptx.exporter.bases import is_decoder, load_transformers
from eptx.exporter.bases.weights.model import read_config
from eptx.exporter.options import Provider
from eptx.exporter.validation import Report, ValidateOptions, validate_bundle
from eptx.exporter.validation import run as validation
from eptx.exporter.validation.reference.files import ReferenceFiles
from eptx.files.safe_files import hash_file
from eptx.files.strict_json import dump_json, read_json_object
from eptx.runtime.validation.comparison.results import TaskReport
from tests.support.bundles import copy_bundle


@dataclass
class Workshop:
    """A base with its graph as an ONNX file.

    Attributes:
        base: the transformers folder.
        folder: where bundles go.
        headless: whether the graph ends before the model's head, for adapters with task heads.
        provider: which the graph is fused for, and bundles are exported for.
        ends: which linear layers the adapters take.
    """

    base: Path
    folder: Path
    headless: bool = False
    provider: Provider = "cpu"
    _count: Any = field(default_factory=count)
    _known: dict[tuple[str, ...], Any] = field(default_factory=dict)

    @property
    def onnx(self) -> Path:
        """The graph, traced once."""
        path = self.folder / "base.onnx"
        if not path.exists():
            model = load_transformers(self.base, provider=self.provider, headless=self.headless).model
            ir.save(model, path, external_data="base.onnx.data")
        return path

    def path(self) -> Path:
        """A new place for an adapter or a bundle."""
        return self.folder / str(next(self._count))

    def export(self, adapters: Path | Sequence[Path], **options: Any) -> Bundle:
        """A bundle of these adapters."""
        folders = [adapters] if isinstance(adapters, Path) else list(adapters)
        config = read_config(self.base)
        graph = None if is_decoder(config) or config.get("is_encoder_decoder") else self.onnx
        return export_bundle(
            self.base, folders, self.path(), ExportOptions(base_onnx=graph, provider=self.provider, **options)
        )

    def validate(self, bundle: Bundle, reference: Path | Sequence[Path] | None = None, **options: Any) -> Report:
        """Holds a bundle against the trained adapter; what the reference computes is remembered."""
        adapters = [reference] if isinstance(reference, Path) else reference
        settings = ValidateOptions(adapters=adapters, providers=["cpu"], **options)
        with mock.patch.object(validation, "run_reference", self._remember(validation.run_reference)):
            return validate_bundle(bundle.path, settings)

    def edited(self, bundle: Bundle, change: Callable[[ir.Graph], None], file: str = "model.onnx") -> Bundle:
        """A copy of a bundle whose graph is another, with a manifest that says so."""
        return self.rebuilt(bundle, lambda model: change(model.graph), file)

    def rebuilt(self, bundle: Bundle, change: Callable[[ir.Model], None], file: str = "model.onnx") -> Bundle:
        """The same, of the model with the functions that it holds."""
        folder = copy_bundle(bundle.path, self.path())
        model = ir.load(folder / file)
        change(model)
        ir.external_data.load_to_model(model)
        ir.save(model, folder / file, external_data=f"{file}.data", size_threshold_bytes=16384)
        files = {name: hash_file(folder / name, error=BundleError) for name in bundle.manifest.files}
        entries = {name: {"size": size, "sha256": digest} for name, (size, digest) in files.items()}
        manifest = read_json_object(folder / "eptx.json", error=BundleError)
        (folder / "eptx.json").write_bytes(dump_json(manifest | {"files": entries}))
        return read_bundle(folder)

    def verdict(self, reference: Path | Sequence[Path], mutant: Path | Sequence[Path], **options: Any) -> Report:
        """Exports one adapter and holds it against another."""
        return self.validate(self.export(mutant, **options), reference, top_k=options.get("top_k"))

    def _remember(self, run_reference: Callable[..., Any]) -> Callable[..., Any]:
        def remembered(
            manifest: Manifest,
            reference: ReferenceFiles,
            batches: Sequence[Any],
            redraw: Any,
            weights: Any,
            columns: int | None,
        ) -> Any:
            if weights is not None or manifest.generation is not None or columns is not None:
                return run_reference(manifest, reference, batches, redraw, weights, columns)  # depends on the bundle
            facts = (manifest.mode, manifest.precision, manifest.provider, manifest.routing, manifest.route)
            facts = (*facts, reference.ids, len(batches), sorted(manifest.modules))
            key = (*(str(each.folder) for each in reference.files), *map(repr, (*facts, reference.tasks)))
            if key not in self._known:
                self._known[key] = run_reference(manifest, reference, batches, redraw, None)
            return self._known[key]

        return remembered


def task(report: Report, name: str) -> TaskReport:
    """One task of the first provider."""
    return next(task for task in report.providers[0].tasks if task.task == name)


def names(bundle: Bundle) -> list[str]:
    """The tasks that rows of a bundle are given."""
    return [task.name for task in bundle.manifest.tasks] + (["auto"] if bundle.manifest.task_inference else [])


def failed_tasks(report: Report) -> set[str]:
    """The tasks that fail on the first provider."""
    return {task.task for task in report.providers[0].tasks if task.verdict == "fail"}


def worst(report: Report) -> float:
    """The largest ratio of error to noise floor, over tasks, modules and outputs."""
    return max(task.worst[1].ratio for provider in report.providers for task in provider.tasks)


def drift(report: Report, name: str, module: str) -> float:
    """The ratio of one module for one task."""
    return task(report, name).modules[module].ratio


def swap_layers_of_the_cache(graph: ir.Graph) -> None:
    """What one layer leaves is what another finds."""
    outputs = {value.name: value for value in graph.outputs}
    first, second = outputs["present.0.key"], outputs["present.1.key"]
    first.name, second.name = "present.1.key", "present.0.key"
    places = [graph.outputs.index(first), graph.outputs.index(second)]
    graph.outputs[places[0]], graph.outputs[places[1]] = second, first
