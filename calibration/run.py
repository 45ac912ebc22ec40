"""One calibration: data, routes, the search, and its result."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

from eptx._version import __version__
from eptx.bundle import Bundle, Quantization
from eptx.calibration.experts import ExpertStudy, study_experts
from eptx.calibration.quantize import Scheme
from eptx.calibration.quantize.config import BUILT, FP32, QuantizationConfig
from eptx.calibration.report import report_html
from eptx.calibration.result import CalibrationResult, calibration_result
from eptx.calibration.routes.study import RouteStudy, study_routes
from eptx.calibration.search.evaluator import Evaluator
from eptx.calibration.search.search import Searcher, SearchResult
from eptx.calibration.search.trial import Budget
from eptx.calibration.search.trial_cache import TrialCache
from eptx.errors import UsageError
from eptx.exporter import ExportOptions, Search
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.bases import is_decoder
from eptx.exporter.bases.weights.model import read_config
from eptx.exporter.bundle.write import Adapted
from eptx.exporter.export import adapt, store
from eptx.exporter.methods.ept.adapter import EptAdapter
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.files.publish import os_error
from eptx.files.strict_json import dump_json
from eptx.runtime.measure import Row, read_data

_WORK = "work"
REPORTS = ("calibration.json", "report.html")


class Calibration:
    """A calibration that is under way. Interrupted, it leaves its results in its folder, and goes on from there.

    Args:
        base: as in `export_bundle`.
        adapter: the adapter.
        options: as there; the precision is a search.
        folder: where it writes down its results, and works.

    Raises:
        UsageError: the precision is no search.

    Attributes:
        found: what the search has measured.
        budget: task -> points that it may drop.
        built: whether GenAI's builder can quantize this base.
    """

    def __init__(self, base: Path | None, adapter: Adapter, options: ExportOptions, folder: Path) -> None:
        if not isinstance(options.precision, Search):
            raise UsageError("a calibration measures on data: give a Search as the precision")
        self._search = options.precision
        self._search.check()
        self._base, self._adapter, self._folder = base, adapter, folder
        tasks = tasks_of(adapter, options)
        self.budget = self._search.budget(tasks)
        self._rows = read_rows(adapter, options, self._search)
        self.built = has_builder(base, adapter, options)
        self._work = folder / _WORK
        self._cache: TrialCache | None = None
        self.found = SearchResult()
        self._searched = False
        self._routes: RouteStudy | None = None
        self._options = self._measure_routes(replace(options, precision="fp32"))
        self._experts: ExpertStudy | None = study_experts(adapter) if isinstance(adapter, EptAdapter) else None

    def __enter__(self) -> Calibration:
        try:
            self._begin()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _begin(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        try:
            (self._work / "base").mkdir(parents=True)
        except OSError as error:
            raise os_error(self._folder, error) from None
        adapted = adapt(self._base, self._adapter, self._options, self._work / "base")
        self._cache = TrialCache(self._folder, self._key(adapted))
        build = self._build if self.built else None
        (self._work / "bundles").mkdir()
        self._evaluator = Evaluator(adapted, self._rows, self._search, self._cache, self._work / "bundles", build)

    def _leave(self) -> None:
        """Removes bundles that were only measured; results stay, if there are any."""
        shutil.rmtree(self._work, ignore_errors=True)
        if self._cache is not None and not len(self._cache):
            self._cache.remove()
        with suppress(OSError):  # it holds something, or is not there
            self._folder.rmdir()

    def search(self) -> Searcher:
        """Finds the best config within the budget."""
        self._searched = True
        searcher = Searcher(self._evaluator, self.budget, self._schemes())
        self.found = searcher.run()
        return searcher

    def study(self) -> None:
        """Searches, and measures every layer's sensitivity even if the search did not need it."""
        self.found = self.search().study("int4-blocks" if self.built else "int8")

    def try_only(self, config: QuantizationConfig) -> None:
        """Measures one config, and takes it."""
        for one in (FP32, config):
            self.found.trials[one] = self._evaluator.trial(one)
        self.found.chosen = config

    def add(self, bundle: Bundle) -> None:
        """Measures a bundle of this model that is there already, beside the trials."""
        self.found.others.append(self._evaluator.trial_of(bundle, "this bundle"))

    def chosen(self) -> Adapted:
        """The graphs, stored by the chosen config."""
        quantization = Quantization({}, {}, self._stated, self._evaluator.metrics, self._search.rows)
        return replace(self._evaluator.quantized(self.found.chosen, quantization), data=self._search.paths)

    @property
    def _stated(self) -> Budget:
        """The budget, where there is one: a fixed precision has none unless the user says so."""
        return self.budget if self._searched or self._search.max_drop else {}

    def result(self) -> CalibrationResult:
        """What it came to."""
        data = _fingerprint(self._rows)
        return calibration_result(self._evaluator, self.found, self._stated, data, self._experts, self._routes)

    def finish(self) -> None:
        """Removes its results from the folder: the next calibration starts anew."""
        if self._cache is not None:
            self._cache.remove()

    def _schemes(self) -> list[Scheme]:
        """The schemes that this model can have."""
        several = len(self._evaluator.adapted.parts) > 1
        found: list[Scheme] = ["fp16", "int8", "int8-blocks", "int4-blocks"]
        return found + ([] if several else ["int8-static"]) + ([BUILT] if self.built else [])

    def _build(self) -> Adapted:
        folder = self._work / "built"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        adapted = adapt(self._base, self._adapter, replace(self._options, precision="int4"), folder)
        store(adapted)
        return adapted

    def _measure_routes(self, options: ExportOptions) -> ExportOptions:
        """Freezes TuckA's routes on the data, where they are to be frozen."""
        if not isinstance(self._adapter, TuckaAdapter) or (options.mode == "dynamic" and self._base is None):
            return options
        self._routes = study_routes(self._base, self._adapter, options, self._rows, self._search.metrics)
        return options if options.mode == "dynamic" else self._routes.options(options)

    def _key(self, adapted: Adapted) -> str:
        """Of everything that a measurement depends on; budget and goal are not among it."""
        import onnxruntime

        parts = {
            "eptx": __version__,
            "onnxruntime": onnxruntime.__version__,
            "base": [part.graph.fingerprint for part in adapted.parts],
            "adapter": adapted.adapter.fingerprint,
            "options": repr(self._options),
            "rows": _fingerprint(self._rows),
            "metrics": dict(self._search.metrics),
            "threads": self._search.threads,
        }
        return hashlib.sha256(dump_json(parts)).hexdigest()


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
    return adapter.heads is None and is_decoder(read_config(base))


def _fingerprint(rows: Mapping[str, Sequence[Row]]) -> str:
    text = dump_json({task: [asdict(row) for row in own] for task, own in rows.items()})
    return f"sha256:{hashlib.sha256(text).hexdigest()}"
