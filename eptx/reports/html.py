"""HTML by construction: text is escaped unless it is markup already."""

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


def _cell(value: Content, kind: str, column: int) -> Html:
    if isinstance(value, Cell):
        return value
    return h("td", value, class_=_class(kind)) if column else h("th", breakable(value), scope="row")


def _class(kind: str) -> str | None:
    return None if kind == "t" else kind
