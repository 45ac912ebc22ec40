"""Which experts each task uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eptx._html import Content, Html, clipped, h, join, table
from eptx.calibration.report.heatmap import share_map
from eptx.calibration.report.phrases import counted, number, readable
from eptx.calibration.report.view import finite


def experts_section(experts: Mapping[str, Any]) -> list[Content]:
    """The map of tasks x experts, the experts that no task uses, and what each module chooses."""
    modules: Mapping[str, Mapping[str, Any]] = experts.get("modules") or {}
    usage: Mapping[str, list[object]] = experts.get("usage") or {}
    unused: Mapping[str, list[int]] = {name: ids for name, ids in (experts.get("unused") or {}).items() if ids}
    count = int(experts.get("experts") or max((len(values) for values in usage.values()), default=0))
    content: list[Content] = []
    if usage:
        rows = [(task, [finite(value) for value in values]) for task, values in usage.items()]
        where = f"in {counted(len(modules), 'adapted module')}" if modules else "in all adapted modules"
        content += [
            h("p", f"How a task's choices of experts are shared out, {where}. A row adds up to 100 %."),
            share_map(["task", *_heads(count, experts.get("sizes") or [])], rows, "Tasks and their experts"),
        ]
    content += _unused(unused, experts.get("unused_everywhere") or [], len(modules))
    if modules:
        content.append(_choices(modules))
    return content


def _heads(count: int, sizes: Sequence[int | None]) -> list[str]:
    """``0 (size 2)``: an expert's number and the size of its kernel, where it has the same in all modules."""
    known = dict(enumerate(sizes))
    return [str(e) if known.get(e) is None else f"{e} (size\u00a0{known[e]})" for e in range(count)]


def _unused(unused: Mapping[str, list[int]], everywhere: list[int], modules: int) -> list[Content]:
    if not unused and not everywhere:
        return [h("p", "Every expert is used by some task in every module.")]
    said = "No task uses these in any module: expert " + ", ".join(map(str, everywhere)) + ". " if everywhere else ""
    if not unused:
        return [h("p", said)]
    total = sum(len(ids) for ids in unused.values())
    said += f"{counted(total, 'expert')} of single modules, in {len(unused)} of {modules or len(unused)}, "
    said += ("is" if total == 1 else "are") + " used by no task there; a conditioned bundle leaves them out."
    names, prefix = readable(unused)
    rows = [[names[name], ", ".join(map(str, ids))] for name, ids in unused.items()]
    listed = table(
        ("module", "unused experts"), rows, kinds="tt", label="Unused experts", class_="named", tall=len(rows) > 24
    )
    return [h("p", said), h("details", h("summary", "Unused experts by module"), left_out(prefix), listed)]


def _choices(modules: Mapping[str, Mapping[str, Any]]) -> Html:
    names, prefix = readable(modules)
    tasks = list(dict.fromkeys(task for chosen in modules.values() for task in chosen))
    rows: list[list[Content]] = [
        [names[name], *(_chosen(chosen.get(task) or []) for task in tasks)] for name, chosen in modules.items()
    ]
    kinds = "t" * (len(tasks) + 1)
    shown = table(
        ["module", *map(clipped, tasks)],
        rows,
        kinds=kinds,
        label="Experts by module",
        class_="named",
        tall=len(rows) > 12,
    )
    said = "The experts that a module uses for a task, and their weights."
    return h("details", h("summary", "Experts by module and task"), h("p", said), left_out(prefix), shown)


def _chosen(experts: list[Any]) -> Html:
    lines = [h("span", f"{expert}: {number(finite(weight))}") for expert, weight in experts]
    return join(lines, str(h("br")))


def left_out(prefix: str) -> Html | None:
    """Says what the names of a table begin with."""
    return h("p", "Names leave out the leading ", h("code", prefix), class_="soft") if prefix else None
