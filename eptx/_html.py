"""HTML by construction: text is escaped unless it is markup already, and a page loads nothing and runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Markup."""


class Cell(Html):
    """Markup of a whole table cell."""


Content = str | None
Attribute = str | int | float | None

_VOID = {"meta", "link", "br", "wbr"}
_JOINT = re.compile(r"(?<=[./_:,-])(?=[^\s./_:,-])")
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --panel: #f4f6f9; --ink: #1c2330; --soft: #566074; --line: #d9dfe8;
  --accent: #2f5f9e; --good: #10703c; --bad: #b3261e; --warm: #9c2a10; --cool: #1d4f91; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #12161d; --panel: #1a2029; --ink: #e6eaf0;
  --soft: #a3adbb; --line: #343d4a; --accent: #8fb8ee; --good: #6fd39a; --bad: #ff8f85;
  --warm: #ff9a70; --cool: #86b6f5; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 3rem;
  color: var(--ink); background: var(--page); overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; } h1 { font-size: 1.5rem; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p { margin: .5rem 0; max-width: 48rem; } summary { cursor: pointer; margin: .5rem 0; }
.soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
.tag { font-size: .75rem; font-weight: 600; border: 1px solid; border-radius: .6rem; padding: 0 .4rem;
  white-space: nowrap; }
.box { overflow: auto; margin: .75rem 0; max-width: 100%; border-radius: .25rem; }
.box.tall { max-height: min(80vh, 46rem); width: fit-content; border: 1px solid var(--line); }
.box.tall th:first-child { padding-left: .5rem; }
.box:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: separate; border-spacing: 0; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  background: var(--page); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { font-size: .85rem; color: var(--soft); vertical-align: bottom; font-weight: 600; overflow-wrap: normal; }
th { font-weight: 600; } tbody th { min-width: 4.5rem; max-width: 18rem; }
.named tbody th { min-width: 9.5rem; }
tbody th, thead th:first-child { position: sticky; left: 0; z-index: 1; }
.tall thead th { position: sticky; top: 0; z-index: 2; } .tall thead th:first-child { z-index: 3; }
td { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
svg { display: block; max-width: 100%; height: auto; overflow: visible; } td svg, th svg { max-width: none; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
@media (max-width: 480px) { body { padding: 1rem 1rem 2rem; } h1 { font-size: 1.3rem; }
  th, td { padding-right: .6rem; } }
@media print { html { font-size: 12px; } body { max-width: none; padding: 0; font-size: 11px; }
  .box, .box.tall { overflow: visible; max-height: none; border: 0; } h2, h3 { break-after: avoid; }
  tr, figure { break-inside: avoid; } tbody th, thead th:first-child, .tall thead th { position: static; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def h(tag: str, *children: Content, **attributes: Attribute) -> Html:
    """An element.

    Args:
        tag: its name.
        children: text, which is escaped, or markup; None is left out.
        attributes: by name; a trailing underscore is dropped, others become hyphens; None is left out.
    """
    names = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{names}>" if tag in _VOID else f"<{tag}{names}>{join(children)}</{tag}>")


def join(children: Iterable[Content], between: str = "") -> Html:
    """Text and markup, one after the other."""
    return Html(between.join(child if isinstance(child, Html) else escape(child) for child in children if child))


def breakable(name: Content) -> Content:
    """A name that may go on in the next line after a dot, a slash and the like; markup stays as it is."""
    return name if name is None or isinstance(name, Html) else join(_JOINT.split(name), h("wbr"))


def clipped(name: str, most: int = 24) -> Html:
    """A name, its middle left out where it is very long; the whole one is shown to a pointer that rests on it."""
    if len(name) <= most:
        return join([breakable(name)])
    half = (most - 1) // 2
    return h("span", breakable(f"{name[:half]}…{name[-half:]}"), title=name)


def cell(value: Content, **attributes: Attribute) -> Cell:
    """A table cell with attributes of its own."""
    return Cell(h("td", value, **attributes))


def table(
    header: Sequence[Content],
    rows: Iterable[Sequence[Content]],
    *,
    kinds: str,
    label: str,
    class_: str | None = None,
    tall: bool = False,
) -> Html:
    """A table whose first column names its rows, in a box of its own that scrolls when the window is narrow.

    Args:
        header: names of the columns.
        rows: their cells.
        kinds: a letter per column: ``t`` text, ``n`` numbers, which align right.
        label: what the table shows, for those who do not see it.
        class_: of the table.
        tall: whether the box scrolls up and down too, below its header.
    """
    names = [
        h("th", breakable(name), scope="col", class_=_class(kind)) for name, kind in zip(header, kinds, strict=True)
    ]
    lines = [
        h("tr", *(_cell(value, kind, column) for column, (value, kind) in enumerate(zip(row, kinds, strict=True))))
        for row in rows
    ]
    content = [h("caption", label), h("thead", h("tr", *names)), h("tbody", join(lines, "\n"))]
    inside = h("table", *content, class_=class_)
    return h("div", inside, class_="box tall" if tall else "box", tabindex=0, role="region", aria_label=label)


def page(title: str, *content: Content, style: str = "") -> str:
    """A whole page in one file: it forbids scripts and loading, and follows the reader's light or dark setting."""
    head = [
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        ),
        h("link", rel="icon", href="data:,"),
        h("title", title),
        h("style", Html(_STYLE + style)),
    ]
    inside = h("head", join(head, "\n")) + "\n" + h("body", h("main", "\n", join(content, "\n"), "\n"))
    return "<!doctype html>\n" + h("html", Html(inside), lang="en") + "\n"


def _cell(value: Content, kind: str, column: int) -> Html:
    if isinstance(value, Cell):
        return value
    return h("td", value, class_=_class(kind)) if column else h("th", breakable(value), scope="row")


def _class(kind: str) -> str | None:
    return None if kind == "t" else kind
