"""Which experts each task uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eptx.calibration.experts import Choice, ExpertStudy
from eptx.calibration.report.heatmap import share_map
from eptx.calibration.report.phrases import counted, number, readable
from eptx.reports.html import Content, Html, clipped, h, join, table


def experts_section(study: ExpertStudy) -> list[Content]:
    """The map of tasks x experts, the experts that no task uses, and what each module chooses."""
    rows = [(task, shares.tolist()) for task, shares in study.usage.items()]
    where = counted(len(study.modules), "adapted module")
    return [
        h("p", f"How a task's choices of experts are shared out, in {where}. A row adds up to 100 %."),
        share_map(["task", *_heads(study.sizes)], rows, "Tasks and their experts"),
        *_unused(study),
        _choices(study.modules),
    ]


def _heads(sizes: Iterable[int | None]) -> list[str]:
    """``0 (size 2)``: an expert's number and the size of its kernel, where it has the same in all modules."""
    return [str(e) if size is None else f"{e} (size\u00a0{size})" for e, size in enumerate(sizes)]


def _unused(study: ExpertStudy) -> list[Content]:
    unused, everywhere = study.unused, study.unused_everywhere
    if not unused:
        return [h("p", "Every expert is used by some task in every module.")]
    said = "No task uses these in any module: expert " + ", ".join(map(str, everywhere)) + ". " if everywhere else ""
    total = sum(map(len, unused.values()))
    said += f"{counted(total, 'expert')} of single modules, in {len(unused)} of {len(study.modules)}, "
    said += ("is" if total == 1 else "are") + " used by no task there; a conditioned bundle leaves them out."
    names, prefix = readable(unused)
    rows = [[names[name], ", ".join(map(str, ids))] for name, ids in unused.items()]
    listed = table(
        ("module", "unused experts"), rows, kinds="tt", label="Unused experts", class_="named", tall=len(rows) > 24
    )
    return [h("p", said), h("details", h("summary", "Unused experts by module"), left_out(prefix), listed)]


def _choices(modules: Mapping[str, Mapping[str, tuple[Choice, ...]]]) -> Html:
    names, prefix = readable(modules)
    tasks = list(next(iter(modules.values())))
    rows: list[list[Content]] = [
        [names[name], *(_chosen(chosen[task]) for task in tasks)] for name, chosen in modules.items()
    ]
    shown = table(
        ["module", *map(clipped, tasks)],
        rows,
        kinds="t" * (len(tasks) + 1),
        label="Experts by module",
        class_="named",
        tall=len(rows) > 12,
    )
    said = "The experts that a module uses for a task, and their weights."
    return h("details", h("summary", "Experts by module and task"), h("p", said), left_out(prefix), shown)


def _chosen(experts: Iterable[Choice]) -> Html:
    return join([h("span", f"{expert}: {number(weight)}") for expert, weight in experts], str(h("br")))


def left_out(prefix: str) -> Html | None:
    """Says what the names of a table begin with."""
    return h("p", "Names leave out the leading ", h("code", prefix), class_="soft") if prefix else None
