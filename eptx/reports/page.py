"""The frame of every report for the browser: one file that loads nothing, runs nothing and follows light or dark."""

from __future__ import annotations

from eptx.reports.html import Content, Html, h, join

#: What the browser may do: no scripts and no requests; the page brings its own style and images.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
#: The colours and the frame of every page.
STYLE = """
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
.verdict { font-size: 1.1rem; padding: .75rem 1rem; background: var(--panel); border-left: 4px solid var(--accent);
  border-radius: .25rem; max-width: none; } .verdict.good { color: inherit; border-color: var(--good); }
.verdict.bad { color: inherit; font-weight: inherit; border-color: var(--bad); }
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


def page(title: str, *sections: Content, style: str = "") -> str:
    """A whole page.

    Args:
        title: of the page and its first heading.
        sections: what follows the heading; None is left out.
        style: CSS that only this report needs, in the colours of the frame (``var(--ink)``, ``--good``, ``--bad``).
    """
    head = [
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        h("title", title),
        h("style", Html(STYLE + style)),
    ]
    body = h("body", h("main", "\n", join([h("h1", title), *sections], "\n"), "\n"))
    return "<!doctype html>\n" + h("html", h("head", join(head, "\n")), "\n", body, lang="en") + "\n"


def section(title: str, *content: Content) -> Html | None:
    """A heading and what stands below it; None without content."""
    return h("section", h("h2", title), join(content, "\n")) if any(content) else None


def verdict(text: Content, good: bool | None) -> Html:
    """The result in a box, in the colour of a good or a bad one, or of neither."""
    return h("p", text, class_="verdict" + {None: "", True: " good", False: " bad"}[good])
