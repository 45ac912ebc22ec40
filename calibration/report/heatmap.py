"""Tables of shaded numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from eptx.calibration.report.phrases import divergence, number, readable
from eptx.calibration.result import Sensitivity
from eptx.reports.html import Cell, Content, Html, breakable, cell, clipped, h, join, table

STYLE = """
.heat th, .heat td { padding: .15rem .5rem; border-bottom: 0; } .heat tbody th { font-weight: 400; padding-left: 0; }
.heat th, .heat td { vertical-align: middle; font-size: .85rem; }
.heat td { text-align: right; font-variant-numeric: tabular-nums; min-width: 3.2rem; }
.heat thead th { text-align: right; min-width: 3.2rem; max-width: 8rem; }
.heat thead th:first-child { text-align: left; padding-left: 0; }
.warm { --hue: var(--warm); } .cool { --hue: var(--cool); }
.s1 { --p: 7%; } .s2 { --p: 14%; } .s3 { --p: 23%; } .s4 { --p: 34%; } .s5 { --p: 47%; } .s6 { --p: 82%; }
.s7 { --p: 100%; }
.s1, .s2, .s3, .s4, .s5, .s6, .s7 { background: color-mix(in srgb, var(--hue) var(--p), var(--page)); }
.s6, .s7 { color: var(--page); }
.shades { display: flex; flex-wrap: wrap; font-size: .85rem; padding: 0; margin: .5rem 0; list-style: none; }
.shades li { padding: .1rem .5rem; font-variant-numeric: tabular-nums; }
.worst { margin: .25rem 0; padding-left: 1.5rem; }
"""
_SHADES = 7
#: A table of more rows scrolls in its box.
_TALL = 48


def sensitivity_map(sensitivity: Sensitivity, kept: Sequence[str]) -> tuple[Html, Html, str]:
    """Layers x tasks.

    Args:
        sensitivity: of the layers.
        kept: layers that the chosen trial keeps, which are marked.

    Returns:
        The most sensitive layers by name, the map with its key, and what all the names in it leave out.
    """
    layers, by_task = [layer.name for layer in sensitivity.layers], sensitivity.divergence
    names, prefix = readable(layers)
    # the darkest shade is for a hundredth of all answers at least
    top = max([1.0, *filter(math.isfinite, itertools.chain(*by_task.values()))])
    shade = _halving(top)
    rows: list[list[Content]] = []
    for index, layer in enumerate(layers):
        values = [values[index] for values in by_task.values()]
        rows.append([_name(names[layer], layer in kept), *(_shaded(v, divergence(v), shade) for v in values)])
    header = ["layer", *map(clipped, by_task)]
    map_ = table(
        header, rows, kinds="t" * len(header), label="Sensitivity", class_="heat warm named", tall=len(rows) > _TALL
    )
    return _worst(layers, names, by_task, kept), Html(_shades(top) + map_), prefix


def share_map(header: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]], label: str) -> Html:
    """Shares of 1 as percentages, shaded up to the largest, or to a half where none is as large."""
    top = max([0.5, *(value for _, values in rows for value in values)])

    def shade(value: float) -> int:
        return min(_SHADES, math.ceil(value / top * _SHADES - 1e-9))

    lines = [[clipped(name), *(_shaded(v, _percent(v), shade) for v in values)] for name, values in rows]
    return table(header, lines, kinds="t" * len(header), label=label, class_="heat cool", tall=len(lines) > _TALL)


def _halving(top: float) -> Callable[[float], int]:
    """Each shade is of numbers twice as large as the one before; the darkest ends at the top."""
    return lambda value: max(0, _SHADES - math.floor(math.log2(top / value) + 1e-9)) if value > 0 else 0


def _shaded(value: float, text: str, shade: Callable[[float], int]) -> Cell:
    step = shade(value) if math.isfinite(value) else 0
    return cell(text, class_=f"s{step}" if step else None)


def _percent(value: float) -> str:
    return f"{number(100 * value, 0)} %"


def _name(name: str, kept: bool) -> Content:
    return join([breakable(name), " ", h("span", "kept", class_="tag good")]) if kept else name


def _shades(top: float) -> Html:
    limits = [top / 2 ** (_SHADES - step) for step in range(1, _SHADES + 1)]
    entries = [h("li", f"≤ {divergence(limit)}", class_=f"s{step}") for step, limit in enumerate(limits, 1)]
    return h("ul", *entries, class_="shades warm")


def _worst(
    layers: Sequence[str], names: Mapping[str, str], by_task: Mapping[str, Sequence[float]], kept: Sequence[str]
) -> Html:
    found = []
    for index, layer in enumerate(layers):
        task = max(by_task, key=lambda name: by_task[name][index])
        found.append((by_task[task][index], names[layer], task, layer in kept))
    found.sort(key=lambda entry: -entry[0])
    lines = [
        h("li", h("b", name), f": {divergence(value)} on ", clipped(task), ", kept" if held else None)
        for value, name, task, held in found[:5]
        if value > 0
    ]
    return h("ol", *lines, class_="worst")
