"""How much a quantized bundle, as it is shipped, loses against the fp32 bundle of the same base and adapter."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle, Manifest, Quantization
from eptx.errors import DataError, UsageError
from eptx.exporter.validation.accuracy.fp32_baseline import export_fp32_baseline, read_fp32_baseline
from eptx.exporter.validation.options import ValidateOptions, is_dataset
from eptx.exporter.validation.reference.files import ReferenceFiles
from eptx.files.jsonl import read_rows
from eptx.manifest.names import BASE_TASK, FLOAT_PRECISIONS
from eptx.progress import step
from eptx.runtime import Session
from eptx.runtime.measure import Probe, Row, Source, choose_metrics, drops, read_data
from eptx.runtime.measure.budget import budgets
from eptx.runtime.measure.rows import ROWS_PER_TASK
from eptx.runtime.validation.quantizing import BudgetedDrop

_NOTHING = Quantization({}, {})
#: Texts of a task on which activation ranges are checked.
_TEXTS = 16


@dataclass(frozen=True)
class DropPlan:
    """What to measure; it is settled before anything runs.

    Attributes:
        rows: task -> its rows; empty where there are none.
        budget: task -> points that it may lose.
        against: the fp32 bundle, if the user has one.
        unmeasured: why nothing can be measured.
    """

    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)
    against: Bundle | None = None
    unmeasured: tuple[str, ...] = ()


def plan_drops(bundle: Bundle, options: ValidateOptions, data: Sequence[str] = ()) -> DropPlan:
    """Finds the rows and the budget for a bundle.

    Args:
        bundle: the bundle.
        options: of the validation.
        data: where the rows of its export are, as ``[TASK=]PATH``, where that is known.

    Raises:
        UsageError: there is a budget, or an fp32 bundle, and no rows; or the bundle is not quantized, or does not fit.
        DataError: the rows cannot be used, or a budget is of an unknown task.
    """
    wanted = bool(options.max_drop) or options.against is not None
    if bundle.manifest.precision in FLOAT_PRECISIONS:
        if wanted:
            precision = bundle.manifest.precision
            raise UsageError(f"--max-drop and --against are for quantized bundles; this one is {precision}")
        return DropPlan()
    stored, tasks = bundle.manifest.quantization or _NOTHING, tasks_of(bundle.manifest)
    budget = budgets(stored.budget, options.max_drop, tasks)
    sources, gone = _sources(options, data)
    if not sources:
        if wanted:
            raise UsageError("there are no rows to measure what is lost on: give --data")
        where = f"{gone} is not there any more" if gone else "nothing beside the bundle names rows"
        warning = f"what quantizing loses was measured on random inputs: {where}; --data FILE gives it in points"
        return DropPlan(unmeasured=(warning,))
    rows = read_data([*_of_these(sources, tasks)], tasks, options.rows or stored.rows or ROWS_PER_TASK)
    return DropPlan(
        rows, budget, read_fp32_baseline(bundle.manifest, options.against) if options.against is not None else None
    )


def accuracy_drops(
    bundle: Bundle, reference: ReferenceFiles, options: ValidateOptions, plan: DropPlan, provider: str
) -> list[BudgetedDrop]:
    """The points that each task loses; both bundles run on one provider."""
    if not plan.rows:
        return []
    named = (bundle.manifest.quantization or _NOTHING).metrics
    with tempfile.TemporaryDirectory(prefix="eptx-") as workspace:
        baseline = plan.against or export_fp32_baseline(bundle.manifest, reference, options, Path(workspace))
        with step(f"measuring what quantizing loses ({provider})"):
            base = Session(baseline, provider)
            probe = Probe(base, plan.rows)
            metrics = choose_metrics(probe.kinds, {t: m for t, m in named.items() if t in plan.rows})
            lost = drops(probe.run(base), probe.run(Session(bundle, provider)), metrics)
    return [BudgetedDrop(drop, plan.budget.get(drop.task)) for drop in lost]


def named_texts(plan: DropPlan) -> dict[str, list[dict[str, str]]]:
    """The first texts of every task, of the rows that the bundle names or the user gave."""
    texts: dict[str, list[dict[str, str]]] = {}
    for task, rows in plan.rows.items():
        for row in rows[:_TEXTS]:
            if row.text is not None:
                pair = {} if row.text_pair is None else {"text_pair": row.text_pair}
                texts.setdefault(task, []).append({"text": row.text, **pair})
    return texts


def unbudgeted_tasks(bundle: Bundle, drops: Sequence[BudgetedDrop]) -> list[str]:
    """The tasks of a quantized bundle without a budget and without labelled rows: their divergence counts instead."""
    if bundle.manifest.precision in FLOAT_PRECISIONS:
        return []
    known = {one.drop.task for one in drops if one.within is not None}
    return [task for task in tasks_of(bundle.manifest) if task not in known]


def tasks_of(manifest: Manifest) -> list[str]:
    """The tasks of a bundle that the adapter was trained for."""
    return [task.name for task in manifest.tasks if task.name != BASE_TASK]


def _sources(options: ValidateOptions, data: Sequence[str]) -> tuple[Sequence[Source], str | None]:
    """The sources of rows; none, and the missing file, if one that the export used is gone."""
    if options.sources:
        return options.sources, None
    found = [Source.parse(text) for text in data]
    gone = next((str(source.rows) for source in found if not Path(str(source.rows)).exists()), None)
    return ([] if gone is not None else found), gone


def _of_these(sources: Sequence[Source], tasks: Sequence[str]) -> Iterator[Source]:
    """The sources without rows of other tasks, if the bundle has one task: a file may serve several bundles."""
    for source in sources:
        if len(tasks) > 1 or not isinstance(source.rows, str | Path):
            yield source
        elif source.task is None or source.task in tasks:
            path = Path(source.rows)
            yield source if is_dataset(path) else Source(_rows_of(path, tasks[0]), source.task)


def _rows_of(file: Path, task: str) -> Iterator[Mapping[str, Any]]:
    rows = read_rows(file, error=DataError, token_ids=True)
    return (row for row in rows if row.get("task", task) == task)
