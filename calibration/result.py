"""The content of ``calibration.json``: what a calibration was asked, what it tried and what it chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eptx._version import __version__
from eptx.calibration.experts import ExpertStudy
from eptx.calibration.options import Goal
from eptx.calibration.quantize import Range, Scheme
from eptx.calibration.quantize.layers import Layer
from eptx.calibration.routes.study import RouteStudy
from eptx.calibration.search.trial import Budget, Trial, past

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """What was measured, and how.

    Attributes:
        goal: which bundle within the budget is best.
        max_drop: task -> points that it may drop; empty where none was stated.
        metrics: task -> metric.
        rows: task -> how many rows.
        labelled: task -> whether its rows have labels; otherwise answers are compared with fp32's.
        data: names of the sources.
        machine: what it was measured on.
        threads: of ONNX Runtime; None where it chose.
        timed: what the latency is of, in words.
    """

    goal: Goal
    max_drop: Budget
    metrics: Mapping[str, str]
    rows: Mapping[str, int]
    labelled: Mapping[str, bool]
    data: Sequence[str]
    machine: str
    threads: int | None
    timed: str


@dataclass(frozen=True)
class Sensitivity:
    """How far each task's answers move when one layer alone is quantized.

    Attributes:
        scheme: of that layer.
        layers: in the order of the graph.
        divergence: task -> divergence for each layer.
    """

    scheme: Scheme
    layers: Sequence[Layer]
    divergence: Mapping[str, Sequence[float]]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        layers = [
            {"name": layer.name, "products": [*layer.products, *layer.embeddings], "weights": layer.weights}
            for layer in self.layers
        ]
        divergence = {task: list(values) for task, values in self.divergence.items()}
        return {"scheme": self.scheme, "layers": layers, "divergence": divergence}


@dataclass(frozen=True)
class CalibrationResult:
    """A calibration that is done.

    Attributes:
        mode: of the bundle. method: the adapter's. model_type: the base's.
        fingerprints: of the base, the adapter and the data.
        settings: what was measured, and how.
        trials: in their order, the float32 bundle first.
        chosen: the best of them within the budget.
        sensitivity: None where no layer was measured alone.
        ranges: product -> task -> range of its input; None where none was observed.
        experts: which experts each task uses, where the adapter's tasks choose some.
        routes: what the rows say of the routes, where the adapter has some.
    """

    mode: str
    method: str
    model_type: str
    fingerprints: Mapping[str, str]
    settings: Settings
    trials: Sequence[Trial]
    chosen: Trial
    sensitivity: Sensitivity | None = None
    ranges: Mapping[str, Mapping[str, Range]] | None = None
    experts: ExpertStudy | None = None
    routes: RouteStudy | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.settings.rows)

    @property
    def budget(self) -> Budget:
        """Task -> points that it may drop; empty where none was stated."""
        return self.settings.max_drop

    @property
    def common_budget(self) -> float | None:
        """The points of every task where all may drop by the same, otherwise None."""
        values = set(self.budget.values())
        return values.pop() if len(values) == 1 else None

    @property
    def shown(self) -> Trial | None:
        """Whose drops a report shows: the chosen trial's or, as fp32 has none, the closest's."""
        return self.chosen if self.chosen is not self.trials[0] else self.closest

    @property
    def closest(self) -> Trial | None:
        """Of the trials that are better than fp32 but past a budget, the one that is least past it."""
        over = [trial for trial in self.trials[1:] if not trial.within(self.budget) and self.cost(trial) < 1]
        return min(over, key=lambda trial: max(past(drop, self.budget) for drop in trial.drops), default=None)

    def cost(self, trial: Trial) -> float:
        """What the goal makes small, over fp32's."""
        return trial.latency_ratio if self.settings.goal == "latency" else trial.bytes_ratio

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "generator": f"eptx {__version__}",
            "mode": self.mode,
            "method": self.method,
            "model_type": self.model_type,
            "tasks": list(self.tasks),
            "fingerprints": dict(self.fingerprints),
            "settings": asdict(self.settings),
            "sensitivity": self.sensitivity.to_json() if self.sensitivity is not None else None,
            "ranges": None
            if self.ranges is None
            else {key: {task: [r.low, r.high] for task, r in own.items()} for key, own in self.ranges.items()},
            "trials": [trial.to_json() | {"within": trial.within(self.budget)} for trial in self.trials],
            "chosen": self.chosen.name,
            "experts": self.experts.to_json() if self.experts is not None else None,
            "routes": self.routes.to_json() if self.routes is not None else None,
        }
