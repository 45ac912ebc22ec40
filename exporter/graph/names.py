"""Names in a graph that are not taken yet."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from eptx.errors import NotSupportedError

#: How the names of nodes and weights of the output ``embedding`` begin: they are not the base's own.
IN_EMBEDDING = "eptx.embedding."


class Names:
    """The names of a graph's values, those inside it too."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._taken = {value.name for value in _values(graph) if value.name}

    def free(self, name: str) -> str:
        """`name`, or the like where the base has a value of that name."""
        candidate, count = name, 0
        while candidate in self._taken:
            count += 1
            candidate = f"{name}_{count}"
        self._taken.add(candidate)
        return candidate

    def reserve(self, name: str) -> str:
        """`name`, for a graph input or output; a value of the base that has it gets another.

        Raises:
            NotSupportedError: the base's own input or output has it.
        """
        if any(value.name == name for value in [*self._graph.inputs, *self._graph.outputs]):
            raise NotSupportedError(f"the base's graph has an input or output {name!r} of its own: rename it there")
        for value in _values(self._graph):
            if value.name == name:
                value.name = self.free(name)
        self._taken.add(name)
        return name


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value of a graph and of those inside it."""
    for inner in (graph, *graph.subgraphs()):
        yield from inner.inputs
        yield from list(inner.initializers.values())
    for node in graph.all_nodes():
        yield from node.outputs
