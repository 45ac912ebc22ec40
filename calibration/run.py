"""One calibration: data, routes, the workbench, the search, and what is told of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from eptx._version import __version__
from eptx.bundle import Bundle, Quantization
from eptx.calibration.experts import study_experts
from eptx.calibration.search.trial_cache import TrialCache
from eptx.calibration.options import CalibrationOptions
from eptx.calibration.quantize import Scheme
from eptx.calibration.report import report_html
from eptx.calibration.result import result_json
from eptx.calibration.routes.study import study_routes
from eptx.calibration.search.search import Found, Search
from eptx.calibration.quantize.config import BUILT, REFERENCE, Setting
from eptx.calibration.search.evaluator import Evaluator
from eptx.exporter import ExportOptions, read_adapter
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
    """A calibration that is under way; interrupted, it leaves what it knows in its folder, and goes on there.

    Args:
        base: as in `export_bundle`. adapters: as there. options: as there.
        calibration: the data, the budget and the goal.
        folder: where it notes down what it has measured, and works.

    Attributes:
        found: what the search has seen.
        budget: task -> points that it may lose.
        built: whether GenAI's builder can quantize this base.
    """

    def __init__(
        self,
        base: Path | None,
        adapters: Sequence[Path],
        options: ExportOptions,
        calibration: CalibrationOptions,
        folder: Path,
    ) -> None:
        calibration.check()
        self._base, self._adapters, self._folder, self._calibration = base, adapters, folder, calibration
        adapter = read_adapter(adapters, top_k=options.top_k, tasks=options.tasks)
        tasks = tasks_of(adapter, options)
        self.budget = calibration.budget(tasks)
        self._rows = read_data(
            calibration.data, tasks, calibration.rows, others=[task for task in adapter.tasks if task not in tasks]
        )
        self.built = has_builder(base, adapter, options)
        self._work = folder / _WORK
        self._ledger: TrialCache | None = None
        self.found = Found()
        self._searched = False
        self._studies: dict[str, Any] = {}
        self._options = self._measure_routes(adapter, options)
        if isinstance(adapter, EptAdapter):
            self._studies["experts"] = study_experts(adapter).to_json()

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
        adapted = adapt(self._base, self._adapters, replace(self._options, precision="fp32"), self._work / "base")
        self._ledger = TrialCache(self._folder, self._key(adapted))
        build = self._build if self.built else None
        (self._work / "bundles").mkdir()
        self._bench = Evaluator(adapted, self._rows, self._calibration, self._ledger, self._work / "bundles", build)

    def _leave(self) -> None:
        """Bundles that were only measured go; what was learnt from them stays, if there is anything."""
        shutil.rmtree(self._work, ignore_errors=True)
        if self._ledger is not None and not len(self._ledger):
            self._ledger.close()
        with suppress(OSError):  # it holds something, or is not there
            self._folder.rmdir()

    def search(self) -> None:
        """Finds the best setting within the budget."""
        self._searched = True
        self._search = Search(self._bench, self.budget, self._schemes())
        self.found = self._search.run()

    def study(self) -> None:
        """Searches, and measures what every layer is sensitive to, whether the search needed it or not."""
        self.search()
        self.found = self._search.study("int4-blocks" if self.built else "int8")

    def try_only(self, setting: Setting) -> None:
        """Measures one setting, and takes it."""
        for one in (Setting(REFERENCE), setting):
            self.found.trials[one] = self._bench.trial(one)
        self.found.chosen = setting

    def add(self, bundle: Bundle) -> None:
        """Measures a bundle of this model that is there already, beside what the search has tried."""
        self.found.others.append(self._bench.trial_of(bundle, "this bundle"))

    def chosen(self) -> Adapted:
        """The graphs as the search has chosen to store them."""
        said = Quantization({}, {}, self._stated, self._bench.metrics, self._calibration.rows)
        result = self._bench.stored(self.found.chosen, said)
        return replace(result, source=replace(result.source, data=self._calibration.paths))

    @property
    def _stated(self) -> dict[str, float]:
        """The budget, where there is one: a fixed precision has none unless the user says so."""
        return self.budget if self._searched or self._calibration.max_drop else {}

    def result(self) -> dict[str, Any]:
        """The content of ``calibration.json``."""
        return result_json(
            self._bench, self.found, self._calibration, self._stated, _fingerprint(self._rows), self._studies
        )

    def reports(self) -> dict[str, bytes]:
        """The files that tell of it, by name."""
        result = self.result()
        return dict(zip(REPORTS, (dump_json(result), report_html(result).encode()), strict=True))

    def done(self) -> None:
        """Forgets what was noted down."""
        if self._ledger is not None:
            self._ledger.close()

    def _schemes(self) -> list[Scheme]:
        """The fixed settings that there are for this model."""
        several = len(self._bench.adapted.parts) > 1
        found: list[Scheme] = ["fp16", "int8", "int8-blocks", "int4-blocks"]
        return found + ([] if several else ["int8-static"]) + ([BUILT] if self.built else [])

    def _build(self) -> Adapted:
        folder = self._work / "built"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        adapted = adapt(self._base, self._adapters, replace(self._options, precision="int4"), folder)
        store(adapted)
        return adapted

    def _measure_routes(self, adapter: Adapter, options: ExportOptions) -> ExportOptions:
        """Freezes TuckA's routes on the data, where they are to be frozen."""
        if not isinstance(adapter, TuckaAdapter) or (options.mode == "dynamic" and self._base is None):
            return options
        study = study_routes(self._base, self._adapters, options, self._rows, self._calibration.metrics)
        self._studies["routes"] = study.to_json()
        return options if options.mode == "dynamic" else study.options(options)

    def _key(self, adapted: Adapted) -> str:
        """Of everything that a measurement depends on; budget and goal are not among it."""
        import onnxruntime

        calibration = self._calibration
        parts = {
            "eptx": __version__,
            "onnxruntime": onnxruntime.__version__,
            "base": [part.graph.fingerprint for part in adapted.parts],
            "adapter": adapted.adapter.fingerprint,
            "options": repr(replace(self._options, precision="fp32")),
            "rows": _fingerprint(self._rows),
            "metrics": dict(calibration.metrics),
            "threads": calibration.threads,
        }
        return hashlib.sha256(dump_json(parts)).hexdigest()


def tasks_of(adapter: Adapter, options: ExportOptions) -> list[str]:
    """The tasks that a bundle will have, the base's apart."""
    return [options.folded_task(adapter.tasks)] if options.mode == "static" else list(adapter.tasks)


def has_builder(base: Path | None, adapter: Adapter, options: ExportOptions) -> bool:
    """Whether a base is a decoder that GenAI's builder quantizes itself."""
    if base is None or options.base_onnx is not None:
        return False
    return adapter.heads is None and is_decoder(read_config(base))


def _fingerprint(rows: Mapping[str, Sequence[Row]]) -> str:
    text = dump_json({task: [asdict(row) for row in own] for task, own in rows.items()})
    return f"sha256:{hashlib.sha256(text).hexdigest()}"
