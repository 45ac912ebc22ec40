"""The workbench of a calibration: one adapted model, stored in one way after the other, and what each loses."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle, BundleWriter, Quantization
from eptx.calibration.quantize.layers import Group, find_layers
from eptx.calibration.search.latency import latency
from eptx.calibration.search.trial_cache import TrialCache
from eptx.calibration.quantize.ranges import observe, union
from eptx.calibration.options import CalibrationOptions
from eptx.calibration.quantize import Quantizer, Range, Scheme
from eptx.calibration.quantize.config import BUILT, REFERENCE, Setting, stored
from eptx.exporter.bundle.write import Adapted
from eptx.exporter.export import write
from eptx.progress import step
from eptx.runtime import Session
from eptx.runtime.measure import Answers, Drop, Probe, Row, choose_metrics, divergence, drops

#: Rows of a task that a sensitivity is measured on: a divergence is finer than a metric, and needs fewer; that of
#: generated tokens, of which a row has several, is finer still.
_SENSITIVITY_ROWS, _GENERATED_ROWS = 32, 8


@dataclass(frozen=True)
class Trial:
    """What one way to store the model costs and loses.

    Attributes:
        name: of the setting. fixed: whether nothing is kept.
        kept: groups in higher precision.
        bytes: of the bundle. bytes_ratio: over fp32.
        milliseconds: of a run. latency_ratio: over fp32, measured side by side.
        drops: what each task loses.
    """

    name: str
    fixed: bool
    kept: tuple[str, ...]
    bytes: int
    bytes_ratio: float
    milliseconds: float
    latency_ratio: float
    drops: tuple[Drop, ...]

    def within(self, budget: Mapping[str, float]) -> bool:
        """Whether no task loses more than it may; one without a budget may lose anything."""
        return all(drop.points <= budget.get(drop.task, math.inf) for drop in self.drops)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {"kept": list(self.kept), "drops": [drop.to_json() for drop in self.drops]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trial:
        """What `to_json` gave."""
        kept, lost = tuple(value["kept"]), tuple(Drop(**drop) for drop in value["drops"])
        return cls(**{**value, "kept": kept, "drops": lost})


class Evaluator:
    """Stores, runs and measures; what was measured before is taken from the ledger.

    Args:
        adapted: float32 graphs with the adapter in them; left as they are.
        rows: task -> its rows.
        options: of the calibration.
        ledger: what is known already.
        folder: an empty folder for bundles.
        build: gives a decoder as GenAI's builder quantizes it, where there is one.

    Attributes:
        groups: what is quantized or kept together.
        metrics: task -> what is measured.
        reference: the float32 bundle.
    """

    def __init__(
        self,
        adapted: Adapted,
        rows: Mapping[str, Sequence[Row]],
        options: CalibrationOptions,
        ledger: TrialCache,
        folder: Path,
        build: Callable[[], Adapted] | None = None,
    ) -> None:
        self._build = build
        self.adapted, self.rows, self.options = adapted, rows, options
        self.groups = find_layers(adapted.parts)
        self._ledger, self._folder = ledger, folder
        self._quantizer = Quantizer()
        self.known_ranges: dict[str, dict[str, Range]] | None = None
        with step("writing the float32 bundle"):
            self.reference = self.write(Setting(REFERENCE), folder / REFERENCE)
        self.session = self._open(self.reference)
        self.probe = Probe(self.session, rows)
        self.metrics = choose_metrics(self.probe.kinds, options.metrics)
        self._answers: dict[bool, Answers] = {}

    def trial(self, setting: Setting) -> Trial:
        """Stores the model, and measures size, latency and what every task loses."""
        return Trial.from_json(self._ledger.get(f"trial {setting}", lambda: self._trial(setting).to_json()))

    def trial_of(self, bundle: Bundle, name: str) -> Trial:
        """The same of a bundle that is there already."""
        files = {file: entry.sha256 for file, entry in sorted(bundle.manifest.files.items())}
        measured = self._ledger.get(f"bundle {files}", lambda: self._measure(bundle, name, True, ()).to_json())
        return Trial.from_json(measured)

    def damage(self, scheme: Scheme, group: Group) -> dict[str, float]:
        """By how much every task's answers move when this group alone is stored so: task -> divergence."""

        def measure() -> dict[str, float]:
            kept = tuple(other.name for other in self.groups if other is not group)
            path = self._folder / "alone"
            session = self._open(self.write(Setting(scheme, kept), path))
            found = self._few.run(session)
            shutil.rmtree(path)
            return {task: divergence(self._reference_answers(few=True), found, task) for task in self.rows}

        result: dict[str, float] = self._ledger.get(f"damage {scheme} {group.name}", measure)
        return result

    def ranges(self) -> dict[str, dict[str, Range]]:
        """product -> task -> the values that it reads."""
        if self.known_ranges is None:

            def measure() -> dict[str, Any]:
                found = observe(self.adapted, self.rows, self._folder / "ranges", self.options.threads)
                shutil.rmtree(self._folder / "ranges")
                return {key: {task: [r.low, r.high] for task, r in own.items()} for key, own in found.items()}

            with step("observing the ranges of activations"):
                known = self._ledger.get("ranges", measure)
            self.known_ranges = {key: {task: Range(*r) for task, r in own.items()} for key, own in known.items()}
        return self.known_ranges

    def write(self, setting: Setting, path: Path) -> Bundle:
        """A bundle of the model, stored so."""
        with BundleWriter(path) as writer:
            return write(writer, self.stored(setting, None))

    def stored(self, setting: Setting, said: Quantization | None) -> Adapted:
        """The graphs, stored so; with what the manifest is to say about budget and data."""
        if setting.scheme == BUILT:
            assert self._build is not None
            return replace(self._build(), quantization=said)
        ranges = None
        if setting.scheme == "int8-static":
            ranges = {key: union(own) for key, own in self.ranges().items()}
        return stored(self.adapted, setting, said, groups=self.groups, ranges=ranges, quantizer=self._quantizer)

    def _trial(self, setting: Setting) -> Trial:
        path = self._folder / "trial"
        bundle = self.reference if setting == Setting(REFERENCE) else self.write(setting, path)
        trial = self._measure(bundle, setting.name, not setting.kept, setting.kept)
        shutil.rmtree(path, ignore_errors=True)
        return trial

    def _measure(self, bundle: Bundle, name: str, fixed: bool, kept: tuple[str, ...]) -> Trial:
        session = self._open(bundle)
        found = self.probe.run(session)
        milliseconds, ratio = latency(session, self.session)
        lost = drops(self._reference_answers(), found, self.metrics)
        share = bundle.size / self.reference.size
        return Trial(
            name, fixed, kept, bundle.size, share, milliseconds, ratio if name != REFERENCE else 1.0, tuple(lost)
        )

    @cached_property
    def _few(self) -> Probe:
        most = _SENSITIVITY_ROWS if self.session.manifest.generation is None else _GENERATED_ROWS
        return Probe(self.session, {task: own[:most] for task, own in self.rows.items()})

    def _reference_answers(self, *, few: bool = False) -> Answers:
        if few not in self._answers:
            self._answers[few] = (self._few if few else self.probe).run(self.session)
        return self._answers[few]

    def _open(self, bundle: Bundle) -> Session:
        return Session(bundle, "cpu", verify=False, threads=self.options.threads)
