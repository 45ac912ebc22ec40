"""Stores one adapted model by one quantization config after the other, and measures each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle, BundleWriter, Quantization
from eptx.calibration.options import Search
from eptx.calibration.quantize import Quantizer, Range, Scheme
from eptx.calibration.quantize.config import BUILT, FP32, QuantizationConfig, quantize
from eptx.calibration.quantize.layers import Layer, find_layers
from eptx.calibration.quantize.ranges import observe_ranges, union
from eptx.calibration.search.latency import latency
from eptx.calibration.search.trial import Trial
from eptx.calibration.search.trial_cache import TrialCache
from eptx.exporter.bundle.write import Adapted
from eptx.exporter.steps.export import write
from eptx.progress import step
from eptx.runtime import Session
from eptx.runtime.measure import Answers, Probe, Row, choose_metrics, divergence, drops

#: Rows of a task for its sensitivity: a divergence is finer than a metric and needs fewer. Generated answers have
#: several tokens each, so they need fewer still.
_SENSITIVITY_ROWS, _GENERATED_ROWS = 32, 8


class Evaluator:
    """Stores, runs and measures; results that are in the cache are taken from there.

    Args:
        adapted: float32 graphs with the adapter in them; left as they are.
        rows: task -> its rows.
        options: of the search.
        cache: results so far.
        folder: an empty folder for bundles.
        build: gives a decoder as GenAI's builder quantizes it, where it can.

    Attributes:
        layers: what is quantized or kept together.
        metrics: task -> what is measured.
        baseline: the float32 bundle.
        known_ranges: product -> task -> range of its input, once they were observed.
    """

    def __init__(
        self,
        adapted: Adapted,
        rows: Mapping[str, Sequence[Row]],
        options: Search,
        cache: TrialCache,
        folder: Path,
        build: Callable[[], Adapted] | None = None,
    ) -> None:
        self._build = build
        self.adapted, self.rows, self.options = adapted, rows, options
        self.layers = find_layers(adapted.graphs)
        self._cache, self._folder = cache, folder
        self._quantizer = Quantizer()
        self.known_ranges: dict[str, dict[str, Range]] | None = None
        with step("writing the float32 bundle"):
            self.baseline = self.write(FP32, folder / FP32.name)
        self.session = self._open(self.baseline)
        self.probe = Probe(self.session, rows)
        self.metrics = choose_metrics(self.probe.kinds, options.metrics)
        self._answers: dict[bool, Answers] = {}

    def trial(self, config: QuantizationConfig) -> Trial:
        """Stores the model, and measures size, latency and the drop of every task."""
        return Trial.from_json(self._cache.get(_trial_key(config), lambda: self._trial(config).to_json()))

    def trial_of(self, bundle: Bundle, name: str) -> Trial:
        """Measures a bundle that is there already."""
        files = {file: entry.sha256 for file, entry in sorted(bundle.manifest.files.items())}
        measured = self._cache.get(f"bundle {files}", lambda: self._measure(bundle, name, ()).to_json())
        return Trial.from_json(measured)

    def sensitivity(self, scheme: Scheme, layer: Layer) -> dict[str, float]:
        """Task -> divergence of its answers when this layer alone is quantized."""

        def measure() -> dict[str, float]:
            kept = tuple(other.name for other in self.layers if other is not layer)
            path = self._folder / "alone"
            session = self._open(self.write(QuantizationConfig(scheme, kept), path))
            found = self._few.run(session)
            shutil.rmtree(path)
            return {task: divergence(self._baseline_answers(few=True), found, task) for task in self.rows}

        result: dict[str, float] = self._cache.get(_layer_key(scheme, layer), measure)
        return result

    def estimate(self, trials: Sequence[QuantizationConfig], more: int, layers: Sequence[Scheme]) -> float | None:
        """Seconds that steps will take, by the mean of those that were measured in this process.

        Args:
            trials: configs; those whose results are in the cache take no time.
            more: further trials, whose configs are not known yet.
            layers: schemes for which every layer's sensitivity is measured, where that is not in the cache.

        Returns:
            None before the first trial.
        """
        if (trial := self._cache.mean_seconds("trial")) is None:
            return None
        few = sum(map(len, self._few_rows.values())) / sum(map(len, self.rows.values()))
        layer = self._cache.mean_seconds("sensitivity") or trial * few
        unknown = sum(_layer_key(scheme, own) not in self._cache for scheme in layers for own in self.layers)
        return trial * (more + sum(_trial_key(config) not in self._cache for config in trials)) + layer * unknown

    def ranges(self) -> dict[str, dict[str, Range]]:
        """Product -> task -> range of its input."""
        if self.known_ranges is None:

            def measure() -> dict[str, Any]:
                folder = self._folder / "ranges"
                found = observe_ranges(self.adapted, self.rows, folder, self.options.threads)
                shutil.rmtree(folder)
                return {key: {task: [r.low, r.high] for task, r in own.items()} for key, own in found.items()}

            with step("observing the ranges of activations"):
                known = self._cache.get("ranges", measure)
            self.known_ranges = {key: {task: Range(*r) for task, r in own.items()} for key, own in known.items()}
        return self.known_ranges

    def write(self, config: QuantizationConfig, path: Path) -> Bundle:
        """A bundle of the model, stored so."""
        with BundleWriter(path) as writer:
            return write(writer, self.quantized(config, None))

    def quantized(self, config: QuantizationConfig, quantization: Quantization | None) -> Adapted:
        """The graphs, stored so, and what the manifest says of budget and data."""
        if config.scheme == BUILT:
            assert self._build is not None
            return replace(self._build(), quantization=quantization)
        ranges = None
        if config.scheme == "int8-static":
            ranges = {key: union(own) for key, own in self.ranges().items()}

        return quantize(
            self.adapted, config, quantization, layers=self.layers, ranges=ranges, quantizer=self._quantizer
        )

    def _trial(self, config: QuantizationConfig) -> Trial:
        path = self._folder / "trial"
        bundle = self.baseline if config == FP32 else self.write(config, path)
        trial = self._measure(bundle, config.name, config.kept)
        shutil.rmtree(path, ignore_errors=True)
        return trial

    def _measure(self, bundle: Bundle, name: str, kept: tuple[str, ...]) -> Trial:
        session = self._open(bundle)
        found, fp32 = self.probe.run(session), bundle is self.baseline
        milliseconds, ratio = latency(session, self.session)
        return Trial(
            name=name,
            kept=kept,
            bytes=bundle.size,
            bytes_ratio=bundle.size / self.baseline.size,
            milliseconds=milliseconds,
            latency_ratio=1.0 if fp32 else ratio,
            drops=tuple(drops(self._baseline_answers(), found, self.metrics, intervals=not fp32)),
        )

    @property
    def _few_rows(self) -> dict[str, Sequence[Row]]:
        most = _SENSITIVITY_ROWS if self.session.manifest.generation is None else _GENERATED_ROWS
        return {task: own[:most] for task, own in self.rows.items()}

    @cached_property
    def _few(self) -> Probe:
        return Probe(self.session, self._few_rows)

    def _baseline_answers(self, *, few: bool = False) -> Answers:
        if few not in self._answers:
            self._answers[few] = (self._few if few else self.probe).run(self.session)
        return self._answers[few]

    def _open(self, bundle: Bundle) -> Session:
        return Session(bundle, "cpu", verify=False, threads=self.options.threads)


def _trial_key(config: QuantizationConfig) -> str:
    return f"trial {config}"


def _layer_key(scheme: Scheme, layer: Layer) -> str:
    return f"sensitivity {scheme} {layer.name}"
