"""What a validation found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from eptx.exporter.validation.accuracy.budget import Judged
from eptx.exporter.validation.accuracy.divergence import Divergence
from eptx.exporter.validation.bundle.backends import Operators, way_name
from eptx.exporter.validation.check import Part
from eptx.exporter.validation.distance import LIMIT
from eptx.exporter.validation.report.plain import plain
from eptx.exporter.validation.timings import Seconds
from eptx.manifest.names import AUTO_TASK

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Measured:
    """One module or output of one task.

    Attributes:
        ratio: its error as a multiple of the noise floor.
        error: root mean square of bundle less float64. noise: of own type less float64. scale: of the values.
        effect: of adapter on less adapter off; None where it was not measured.
        effect_ratio: the effect as a multiple of the noise floor: what a bundle without the adapter would score.
    """

    ratio: float
    error: float
    noise: float
    scale: float
    effect: float | None
    effect_ratio: float | None


@dataclass(frozen=True)
class TaskReport:
    """One task, run one way.

    Attributes:
        task: its name; ``auto`` for rows whose task the bundle infers, ``base`` for rows without the adapter.
        adapted: whether the adapter is on.
        rows: how many were judged. rows_set_aside: how many were behind a near tie of a router.
        modules: adapted module -> what was measured, in the order in which the graph computes them.
        outputs: graph output -> the same, of the model exactly as it is shipped.
        tied_at: EPT: a module whose experts rounding decides.
        failed_at: the first module (or ``task_heads``, or output) that is wrong, None if none is.
        reason: what is wrong there.
        argmax_agreement: part of the rows (of a language model: positions) with the same answer; None without logits.
        metric: on labelled data: its name, rows, and value for the bundle and the reference.
        greedy: of a generator: of the tokens that the reference chooses, the part that the bundle chooses too, and by
            how much the reference prefers its own where they first differ. It is not judged.
        rounded: of a quantized bundle: what rounding activations to 8 bits does, which is not judged either; the rest
            is measured without.
    """

    task: str
    adapted: bool
    rows: int
    rows_set_aside: int
    modules: Mapping[str, Measured]
    outputs: Mapping[str, Measured]
    tied_at: str | None = None
    failed_at: str | None = None
    reason: str | None = None
    argmax_agreement: float | None = None
    metric: Mapping[str, Any] | None = None
    greedy: Mapping[str, Any] | None = None
    rounded: Mapping[str, Any] | None = None

    @property
    def worst(self) -> tuple[str, Measured]:
        """The module or output with the largest ratio."""
        return max([*self.modules.items(), *self.outputs.items()], key=lambda item: item[1].ratio)

    @property
    def effect_ratio(self) -> float | None:
        """The largest effect of the adapter, in noise floors; None where it was not measured."""
        if not self.rows:
            return None
        found = [m.effect_ratio for m in (*self.modules.values(), *self.outputs.values()) if m.effect_ratio is not None]
        return max(found) if found and self.adapted else None

    @property
    def undecided(self) -> str | None:
        """Why a bundle without the adapter would have passed too, None if it would not."""
        if self.failed_at is not None:
            return None
        if self.tied_at is not None:
            return f"rounding decides which experts {self.tied_at} uses"
        if self.rows == 0:
            return "rounding decides what a router chooses for every one of its rows"
        if self.adapted and self.effect_ratio is not None and self.effect_ratio <= LIMIT:
            return f"the adapter's own effect is {self.effect_ratio:.3g} noise floors: too little to be seen"
        return None

    @property
    def verdict(self) -> str:
        """``pass``, ``fail`` or ``undecided``."""
        return "fail" if self.failed_at is not None else "undecided" if self.undecided else "pass"

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        name, measured = self.worst
        return asdict(self) | {
            "verdict": self.verdict,
            "undecided": self.undecided,
            "worst": {"name": name, "ratio": measured.ratio},
            "effect_ratio": self.effect_ratio,
        }


@dataclass(frozen=True)
class ProviderReport:
    """All tasks on one provider, run one way.

    Attributes:
        provider: ``cpu`` or ``cuda``.
        tasks: a report each.
        operators: what the bundle's own operators ran as; "standard" if it has none.
    """

    provider: str
    tasks: Sequence[TaskReport]
    operators: Operators = "standard"

    @property
    def name(self) -> str:
        """What the report calls it."""
        return way_name(self.provider, self.operators)

    @property
    def blocking(self) -> list[TaskReport]:
        """The tasks for which the bundle is not accepted; inferring can fail, but not by being undecidable."""
        return [t for t in self.tasks if t.verdict == "fail" or (t.verdict == "undecided" and t.task != AUTO_TASK)]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            "provider": self.provider,
            "operators": self.operators,
            "passed": not self.blocking,
            "tasks": [task.to_json() for task in self.tasks],
        }


@dataclass(frozen=True)
class Report:
    """What a validation found.

    Attributes:
        bundle: mode, method, dtype, model type and fingerprints, as the bundle says.
        inputs: name and shape of every batch.
        redrawn: how many generated batches were drawn again for a near tie.
        live: TuckA with a frozen route: how far it is from the live one on the user's data.
        providers: one report for every way to run the bundle.
        drops: of a quantized bundle: what each task loses against fp32.
        divergences: the same of tasks that neither a budget nor labelled rows judge, on generated inputs.
        warnings: what did not stop the validation.
        parts: what was held against its source by itself, and what nothing was held against.
        seconds: how long each stage took.
    """

    bundle: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    redrawn: int
    live: Mapping[str, Any] | None
    providers: Sequence[ProviderReport]
    drops: Sequence[Judged] = field(default=())
    divergences: Sequence[Divergence] = field(default=())
    warnings: Sequence[str] = field(default=())
    parts: Sequence[Part] = field(default=())
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def passed(self) -> bool:
        """Whether every task is accepted, whichever way it runs, and keeps to its budget, and no part is wrong."""
        return not (any(provider.blocking for provider in self.providers) or self.wrong_parts or self._over)

    @property
    def wrong_parts(self) -> list[Part]:
        """The parts that are not what their sources say."""
        return [part for part in self.parts if part.wrong is not None]

    @property
    def _over(self) -> list[Judged | Divergence]:
        judged: list[Judged | Divergence] = [*self.drops, *self.divergences]
        return [one for one in judged if one.within is False]

    @property
    def reason(self) -> str:
        """The first failure, as one line; "" if it passed."""
        wrong = self.wrong_parts
        if wrong:  # first, since a table or a field that is wrong is why a run is
            more = f" (and {len(wrong) - 1} more parts)" if len(wrong) > 1 else ""
            return f"{wrong[0].name}: {wrong[0].wrong}{more}"
        for provider in self.providers:
            bad = sorted(provider.blocking, key=lambda task: task.verdict != "fail")
            if bad:
                more = f" (and {len(bad) - 1} more tasks)" if len(bad) > 1 else ""
                return f"provider {provider.name}: {sentence(bad[0])}{more}"
        more = f" (and {len(self._over) - 1} more tasks)" if len(self._over) > 1 else ""
        return f"{self._over[0].sentence}{more}" if self._over else ""

    def to_json(self) -> dict[str, Any]:
        """What goes into validation.json and ``--json``; null stands for what is infinite or not a number."""
        found = {
            "schema_version": SCHEMA_VERSION,
            "passed": self.passed,
            "reason": self.reason or None,
            "limit": LIMIT,
            "bundle": dict(self.bundle),
            "inputs": list(self.inputs),
            "redrawn": self.redrawn,
            "frozen_from_live": self.live,
            "providers": [provider.to_json() for provider in self.providers],
            "drops": [drop.to_json() for drop in self.drops],
            "divergences": [one.to_json() for one in self.divergences],
            "warnings": list(self.warnings),
            "parts": [part.to_json() for part in self.parts],
            "seconds": self.seconds,
        }
        return {key: plain(value) for key, value in found.items()}


def sentence(task: TaskReport) -> str:
    """What is wrong with a task, or why nothing is known of it."""
    if task.failed_at is None:
        return f"task {task.task} cannot be validated: {task.undecided}"
    what = "first drifting module " if task.failed_at in task.modules else ""
    return f"task {task.task} fails at {what}{task.failed_at}: {task.reason}"
