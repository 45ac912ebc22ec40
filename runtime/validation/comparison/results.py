"""What was found: of every task, on every backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eptx.manifest.names import AUTO_TASK
from eptx.runtime.validation.comparison.answers import GreedyAgreement, Metric
from eptx.runtime.validation.distance import LIMIT
from eptx.runtime.validation.running.backends import Operators, backend_name


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
class RoundedActivations:
    """How far a bundle that rounds activations to 8 bits is from the reference, as it is shipped.

    Attributes:
        relative_rms: output -> root mean square of the error over that of the values.
        argmax_agreement, greedy: as in `TaskReport`.
    """

    relative_rms: Mapping[str, float]
    argmax_agreement: float | None
    greedy: GreedyAgreement | None


@dataclass(frozen=True)
class TaskReport:
    """One task on one backend.

    Attributes:
        task: its name; ``auto`` for rows whose task the bundle infers, ``base`` for rows without the adapter.
        adapted: whether the adapter is on.
        rows: how many were compared. rows_set_aside: how many were not, behind a router tie.
        modules: adapted module -> what was measured, in the order in which the graph computes them.
        outputs: graph output -> the same, of the model exactly as it is shipped.
        tied_at: EPT: a module whose experts rounding decides.
        failed_at: the first module (or ``task_heads``, or output) that is wrong, None if none is.
        reason: what is wrong there.
        argmax_agreement: part of the rows (of a language model: positions) with the same answer; None without logits.
        metric: on labelled data.
        greedy: of a generator. It does not count for the verdict.
        rounded: of a bundle that rounds activations to 8 bits; all else is measured without. It does not count either.
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
    metric: Metric | None = None
    greedy: GreedyAgreement | None = None
    rounded: RoundedActivations | None = None

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
        """Why a pass would say nothing, as a bundle without the adapter would pass too; None if it would not."""
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

    @property
    def sentence(self) -> str:
        """What is wrong with the task, or why nothing is known of it."""
        if self.failed_at is None:
            return f"task {self.task} cannot be validated: {self.undecided}"
        what = "first drifting module " if self.failed_at in self.modules else ""
        return f"task {self.task} fails at {what}{self.failed_at}: {self.reason}"

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
class BackendReport:
    """All tasks on one backend.

    Attributes:
        provider: its name.
        tasks: a report each.
        operators: what the bundle's own operators ran as; "standard" if it has none.
        nodes: how many nodes of the shipped model ran on which provider; None on the CPU.
    """

    provider: str
    tasks: Sequence[TaskReport]
    operators: Operators = "standard"
    nodes: Mapping[str, int] | None = None

    @property
    def name(self) -> str:
        """Its name in the report."""
        return backend_name(self.provider, self.operators)

    @property
    def blocking(self) -> list[TaskReport]:
        """The tasks for which the bundle is not accepted. An undecided task blocks it, unless the task is inferred."""
        return [t for t in self.tasks if t.verdict == "fail" or (t.verdict == "undecided" and t.task != AUTO_TASK)]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            "provider": self.provider,
            "operators": self.operators,
            "nodes": self.nodes and dict(self.nodes),
            "passed": not self.blocking,
            "tasks": [task.to_json() for task in self.tasks],
        }
