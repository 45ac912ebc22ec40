"""One calibration: data, routes, the search, and its result."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from eptx._version import __version__
from eptx.bundle import Bundle, Quantization
from eptx.calibration.experts import ExpertStudy, study_experts
from eptx.calibration.options import Search
from eptx.calibration.quantize import Scheme
from eptx.calibration.quantize.config import BUILT, FP32, QuantizationConfig
from eptx.calibration.report import report_html
from eptx.calibration.report.phrases import few_rows
from eptx.calibration.result import CalibrationResult, Sensitivity, Settings
from eptx.calibration.routes.study import RouteStudy, study_routes
from eptx.calibration.search.evaluator import Evaluator
from eptx.calibration.search.latency import timed_shape
from eptx.calibration.search.search import Searcher, SearchResult
from eptx.calibration.search.trial import Budget
from eptx.calibration.search.trial_cache import TrialCache
from eptx.errors import UsageError
from eptx.exporter import ExportOptions
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.bases import is_decoder
from eptx.exporter.bases.weights.model import read_config
from eptx.exporter.bundle.write import Adapted
from eptx.exporter.methods.method import method_of
from eptx.exporter.steps.export import adapt, store
from eptx.exporter.steps.load import class_of
from eptx.files.publish import os_error
from eptx.files.strict_json import dump_json
from eptx.progress import note
from eptx.runtime.machine import machine
from eptx.runtime.measure import Row, read_data

_WORK = "work"
REPORTS = ("calibration.json", "report.html")


@dataclass
class Calibration:
    """A calibration that is under way.

    Attributes:
        evaluator: of the model.
        cache: the results so far.
        budget: task -> points that it may drop.
        built: whether GenAI's builder can quantize this base.
        experts: which experts each task uses, where the adapter's tasks choose some.
        routes: what the rows say of the routes, where the adapter has some.
        found: what the search has measured.
        stated: the budget, where there is one: a fixed precision has none unless the user says so.
    """

    evaluator: Evaluator
    cache: TrialCache
    budget: Budget
    built: bool
    experts: ExpertStudy | None
    routes: RouteStudy | None
    found: SearchResult = field(default_factory=SearchResult)

    @property
    def stated(self) -> Budget:
        options = self.evaluator.options
        return self.budget if options.only is None or options.max_drop else {}

    def search(self, study: Scheme | None = None) -> Searcher:
        """Finds the best config within the budget; ``study`` as `Searcher` takes it."""
        several = len(self.evaluator.adapted.graphs) > 1
        schemes: list[Scheme] = ["fp16", "int8", "int8-blocks", "int4-blocks"]
        static: list[Scheme] = [] if several else ["int8-static"]
        built: list[Scheme] = [BUILT] if self.built else []
        searcher = Searcher(self.evaluator, self.budget, [*schemes, *static, *built], study)
        self.found = searcher.run()
        return searcher

    def study(self) -> None:
        """Searches, and measures every layer's sensitivity even if the search did not need it."""
        scheme: Scheme = "int4-blocks" if self.built else "int8"
        self.found = self.search(scheme).study(scheme)

    def try_only(self, config: QuantizationConfig) -> None:
        """Measures one config, and takes it."""
        for one in (FP32, config):
            self.found.trials[one] = self.evaluator.trial(one)
        self.found.chosen = config

    def add(self, bundle: Bundle) -> None:
        """Measures a bundle of this model that is there already, beside the trials."""
        self.found.others.append(self.evaluator.trial_of(bundle, "this bundle"))

    def chosen(self) -> Adapted:
        """The graphs, stored by the chosen config."""
        options = self.evaluator.options
        quantization = Quantization({}, {}, self.stated, self.evaluator.metrics, options.rows)
        return replace(self.evaluator.quantized(self.found.chosen, quantization), data=options.paths)

    def result(self) -> CalibrationResult:
        """What it came to."""
        evaluator, found, options = self.evaluator, self.found, self.evaluator.options
        manifest = evaluator.baseline.manifest
        settings = Settings(
            goal=options.goal,
            max_drop=self.stated,
            metrics=evaluator.metrics,
            rows={task: len(rows) for task, rows in evaluator.rows.items()},
            labelled={task: evaluator.probe.labelled(task) for task in evaluator.rows},
            data=[source.name for source in options.data],
            machine=machine(),
            threads=options.threads,
            timed=timed_shape(evaluator.session),
        )
        return CalibrationResult(
            mode=manifest.mode,
            method=manifest.method,
            model_type=manifest.model_type,
            fingerprints={**manifest.fingerprints, "data": _fingerprint(evaluator.rows)},
            settings=settings,
            trials=(*found.trials.values(), *found.others),
            chosen=found.best,
            sensitivity=self._sensitivity(),
            ranges=evaluator.known_ranges,
            experts=self.experts,
            routes=self.routes,
        )

    def _sensitivity(self) -> Sensitivity | None:
        """Of the chosen scheme where it was repaired, otherwise of the scheme that was looked at last."""
        found = self.found
        if not found.sensitivity:
            return None
        scheme = found.chosen.scheme if found.chosen.kept else list(found.sensitivity)[-1]
        return Sensitivity(scheme, self.evaluator.layers, found.sensitivity[scheme])

    def finish(self) -> None:
        """Removes the results from the folder: the next calibration starts anew."""
        self.cache.remove()


@contextmanager
def calibrating(base: Path | None, adapter: Adapter, options: ExportOptions, folder: Path) -> Iterator[Calibration]:
    """A calibration. Interrupted, it leaves its results in its folder, and the next one goes on from there.

    Args:
        base: as in `export_bundle`.
        adapter: the adapter.
        options: as there; the precision is a search.
        folder: where it writes down its results, and works.

    Raises:
        UsageError: the precision is no search.
    """
    search = options.precision
    if not isinstance(search, Search):
        raise UsageError("a calibration measures on data: give a Search as the precision")
    search.check()
    budget, rows = search.budget(tasks_of(adapter, options)), read_rows(adapter, options, search)
    built, routes = has_builder(base, adapter, options), _study_routes(base, adapter, options, rows, search)
    plain = replace(options, precision="fp32")
    if routes is not None and options.mode != "dynamic":
        plain = routes.options(plain)
    experts = study_experts(adapter)
    work, cache = folder / _WORK, None
    shutil.rmtree(work, ignore_errors=True)
    try:
        adapted = adapt(base, adapter, plain, _made(work / "base"))
        cache = TrialCache(folder, _key(adapted, rows, search))

        def build() -> Adapted:
            shutil.rmtree(work / "built", ignore_errors=True)
            adapted = adapt(base, adapter, replace(plain, precision="int4"), _made(work / "built"))
            store(adapted)
            return adapted

        evaluator = Evaluator(adapted, rows, search, cache, _made(work / "bundles"), build if built else None)
        calibration = Calibration(evaluator, cache, budget, built, experts, routes)
        few = few_rows(calibration.stated, evaluator.metrics, {task: len(own) for task, own in rows.items()})
        if few is not None:
            note(few)
        yield calibration
    finally:  # bundles that were only measured go; results stay, if there are any
        shutil.rmtree(work, ignore_errors=True)
        if cache is not None and not len(cache):
            cache.remove()
        with suppress(OSError):  # it holds something, or is not there
            folder.rmdir()


def report_files(result: CalibrationResult) -> dict[str, bytes]:
    """The files that report a calibration, by name."""
    return dict(zip(REPORTS, (dump_json(result.to_json()), report_html(result).encode()), strict=True))


def tasks_of(adapter: Adapter, options: ExportOptions) -> list[str]:
    """The tasks that a bundle will have, without the base's."""
    return [options.folded_task(adapter.tasks)] if options.mode == "static" else list(adapter.tasks)


def read_rows(adapter: Adapter, options: ExportOptions, search: Search) -> dict[str, list[Row]]:
    """The rows of every task that a bundle will have.

    Raises:
        DataError: the data is damaged, or a task has no rows.
    """
    tasks = tasks_of(adapter, options)
    return read_data(search.data, tasks, search.rows, others=[task for task in adapter.tasks if task not in tasks])


def has_builder(base: Path | None, adapter: Adapter, options: ExportOptions) -> bool:
    """Whether a base is a decoder that GenAI's builder quantizes itself."""
    if base is None or options.base_onnx is not None:
        return False
    return is_decoder({"architectures": [class_of(base, read_config(base), adapter, options)]})


def _study_routes(
    base: Path | None, adapter: Adapter, options: ExportOptions, rows: Mapping[str, Sequence[Row]], search: Search
) -> RouteStudy | None:
    """What the rows say of the adapter's routes; where the router stays in the graph, a base folder is no must."""
    if method_of(adapter.method).router(adapter) is None or (options.mode == "dynamic" and base is None):
        return None
    return study_routes(base, adapter, options, rows, search.metrics)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise os_error(folder, error) from None
    return folder


def _key(adapted: Adapted, rows: Mapping[str, Sequence[Row]], search: Search) -> str:
    """Of everything that a measurement depends on; budget and goal are not among it."""
    import onnxruntime

    parts = {
        "eptx": __version__,
        "onnxruntime": onnxruntime.__version__,
        "base": [edited.graph.fingerprint for edited in adapted.graphs],
        "adapter": adapted.adapter.fingerprint,
        "options": repr(adapted.options),
        "rows": _fingerprint(rows),
        "metrics": dict(search.metrics),
        "threads": search.threads,
    }
    return hashlib.sha256(dump_json(parts)).hexdigest()


def _fingerprint(rows: Mapping[str, Sequence[Row]]) -> str:
    text = dump_json({task: [asdict(row) for row in own] for task, own in rows.items()})
    return f"sha256:{hashlib.sha256(text).hexdigest()}"
