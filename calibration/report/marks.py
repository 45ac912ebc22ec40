"""The style of what several plots draw: the zero line, the line of the budget, and the mark of a trial or a drop."""

from __future__ import annotations

STYLE = """
svg .zero { stroke: var(--soft); } svg .budget { stroke: var(--bad); stroke-dasharray: 5 4; }
svg .mark { stroke-width: 2; stroke: var(--good); fill: var(--good); }
svg .mark.over { stroke: var(--bad); fill: var(--page); }
"""
