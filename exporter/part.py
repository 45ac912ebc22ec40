"""One graph of a base with what an export adds to it: most bases have one, encoder-decoders two."""

from __future__ import annotations

from dataclasses import dataclass, field

from eptx.exporter.attach import Editor
from eptx.exporter.base import BaseGraph, Site


@dataclass
class Part:
    """A graph that is being adapted.

    Attributes:
        graph: the base's.
        sites: where the adapted modules that it holds are.
        editor: what changes it.
    """

    graph: BaseGraph
    sites: dict[str, Site] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.editor = Editor(self.graph.model)
