"""What a validation found, as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from eptx.exporter.validation.budget import Judged
from eptx.exporter.validation.distance import LIMIT
from eptx.exporter.validation.parts import Part
from eptx.exporter.validation.quantized.divergence import Divergence

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
    """One task on one provider.

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
        rounded: of a quantised bundle: what rounding activations to 8 bits does, which is not judged either; the rest
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
    """All tasks on one provider."""

    provider: str
    tasks: Sequence[TaskReport]

    @property
    def blocking(self) -> list[TaskReport]:
        """The tasks for which the bundle is not accepted; inferring can fail, but not by being undecidable."""
        return [t for t in self.tasks if t.verdict == "fail" or (t.verdict == "undecided" and t.task != "auto")]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            "provider": self.provider,
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
        providers: one report each.
        drops: of a quantised bundle: what each task loses against fp32.
        divergences: the same of tasks that neither a budget nor labelled rows judge, on generated inputs.
        parts: what was held against its source by itself.
        warnings: what did not stop the validation.
    """

    bundle: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    redrawn: int
    live: Mapping[str, Any] | None
    providers: Sequence[ProviderReport]
    drops: Sequence[Judged] = field(default=())
    divergences: Sequence[Divergence] = field(default=())
    parts: Sequence[Part] = field(default=())
    warnings: Sequence[str] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether every task is accepted on every provider, and keeps to its budget."""
        wrong = any(part.wrong for part in self.parts)
        return not wrong and not any(provider.blocking for provider in self.providers) and not self._over

    @property
    def _over(self) -> list[Judged | Divergence]:
        both: list[Judged | Divergence] = [*self.drops, *self.divergences]
        return [one for one in both if one.within is False]

    @property
    def reason(self) -> str:
        """The first failure, as one line; "" if it passed."""
        for provider in self.providers:
            bad = sorted(provider.blocking, key=lambda task: task.verdict != "fail")
            if bad:
                more = f" (and {len(bad) - 1} more tasks)" if len(bad) > 1 else ""
                return f"provider {provider.provider}: {_sentence(bad[0])}{more}"
        wrong = [part for part in self.parts if part.wrong]
        if wrong:
            return f"{wrong[0].name}: {wrong[0].wrong}" + (f" (and {len(wrong) - 1} more parts)" if wrong[1:] else "")
        more = f" (and {len(self._over) - 1} more tasks)" if len(self._over) > 1 else ""
        return f"{self._over[0].sentence}{more}" if self._over else ""

    def to_json(self) -> dict[str, Any]:
        """What goes into validation.json and ``--json``."""
        return {
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
            "parts": [part.to_json() for part in self.parts],
            "warnings": list(self.warnings),
        }


def _sentence(task: TaskReport) -> str:
    if task.failed_at is None:
        return f"task {task.task} cannot be validated: {task.undecided}"
    what = "first drifting module " if task.failed_at in task.modules else ""
    return f"task {task.task} fails at {what}{task.failed_at}: {task.reason}"


def report_table(report: Report) -> str:
    """The report as text: a table per provider, and one line that sums it up."""
    lines = []
    for provider in report.providers:
        lines += _provider_lines(provider)
    lines += _drop_lines(report.drops)
    lines += [f"{'pass' if one.within else 'fail'}: {one.sentence}" for one in report.divergences]
    live = report.live
    if live is not None:
        lines.append(
            f"frozen route: the live route's group agrees on {live['group_agreement']:.1%} of {live['rows']} rows; "
            f"outputs differ by {max(live['relative_rms'].values()):.2g} of their size"
        )
    return "\n".join(lines)


#: The columns of what is lost.
DROPS = ("task", "metric", "fp32", "bundle", "points lost", "95 %", "budget", "rows", "verdict")


def drop_cells(judged: Judged) -> tuple[str, ...]:
    """One task's cells of `DROPS`."""
    lost = judged.drop
    return (
        lost.task,
        lost.metric if lost.labelled else f"{lost.metric} with fp32",
        f"{lost.reference:.3f}",
        f"{lost.found:.3f}",
        f"{lost.points:.2f}",
        f"{lost.low:.1f} to {lost.high:.1f}",
        "-" if judged.budget is None else f"{judged.budget:g}",
        str(lost.rows),
        {None: "-", True: "pass", False: "fail"}[judged.within],
    )


def _drop_lines(drops: Sequence[Judged]) -> list[str]:
    if not drops:
        return []
    mean = sum(judged.drop.points for judged in drops) / len(drops)
    over = [f"fail: {judged.sentence}" for judged in drops if judged.within is False]
    rows = [DROPS, *(drop_cells(judged) for judged in drops)]
    return [*_aligned(rows), *over, f"quantising loses {mean:.2f} points on average of {len(drops)} tasks"]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _provider_lines(provider: ProviderReport) -> list[str]:
    generates = any(task.greedy is not None for task in provider.tasks)
    last = "greedy" if generates else "metric"
    header = ("task", "error / noise", "noise floor", "adapter / noise", "argmax", last, "rows", "verdict")
    lines = _aligned([header, *(_cells(task) for task in provider.tasks)])
    lines += [line for task in provider.tasks for line in notes(task)]
    bad = [task for task in provider.tasks if task.verdict != "pass"]
    lines += [f"{task.verdict}: {_sentence(task)}" for task in bad]
    worst = max(provider.tasks, key=lambda task: task.worst[1].ratio)
    name, measured = worst.worst
    verdict = "failed" if provider.blocking else "passed"
    where = f"worst {measured.ratio:.3g} of {LIMIT:g} noise floors, task {worst.task}, {name}"
    lines.append(f"{provider.provider}: {verdict}; {where}")
    return lines


def notes(task: TaskReport) -> list[str]:
    """What is told of a generator, and not judged."""
    lines = []
    first = (task.greedy or {}).get("first_disagreement")
    if first is not None:
        lines.append(
            f"{task.task}: the first greedy token that differs is number {first['token'] + 1} of {first['batch']}, row "
            f"{first['row']}: the reference prefers its own by {first['margin']:.2g}"
        )
    if task.rounded is not None:
        greedy = task.rounded["greedy"]
        said = f", greedy tokens agree in {greedy['agreement']:.1%}" if greedy is not None else ""
        lines.append(
            f"{task.task}: activations of 8 bits, as shipped, change the outputs by "
            f"{max(task.rounded['relative_rms'].values()):.2g} of their size{said}"
        )
    return lines


def _cells(task: TaskReport) -> tuple[str, ...]:
    measured = task.worst[1]
    relative = measured.noise / measured.scale if measured.scale else 0.0
    metric = task.metric
    return (
        task.task,
        f"{measured.ratio:.3g}",
        f"{relative:.1e}",
        "-" if task.effect_ratio is None else f"{task.effect_ratio:.3g}",
        "-" if task.argmax_agreement is None else f"{task.argmax_agreement:.1%}",
        f"{task.greedy['agreement']:.1%} of {task.greedy['tokens']}"
        if task.greedy is not None
        else "-"
        if metric is None
        else f"{metric['name']} {metric['bundle']:.3f} ({metric['reference']:.3f})",
        f"{task.rows}" + (f" (+{task.rows_set_aside} tied)" if task.rows_set_aside else ""),
        task.verdict,
    )
