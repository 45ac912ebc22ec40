"""One graph of a base with what an export adds to it: most bases have one, encoder-decoders two."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from eptx.bundle import ModuleOutput
from eptx.exporter.adapters.updates import TensorTable
from eptx.exporter.bases import BaseGraph, Site
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.outline import outline
from eptx.exporter.bases.passes.whole import layout_of
from eptx.exporter.bases.products.embeddings import find_embeddings
from eptx.exporter.bases.products.integer import integer_product
from eptx.exporter.bases.products.locate import named_sites
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.names import IN_EMBEDDING


@dataclass
class EditedGraph:
    """A graph that is being adapted.

    Attributes:
        graph: the base's.
        sites: where the adapted modules that it holds are.
        editor: what changes it.
        weights: names of the base's own initializers.
        products: names of the base's own nodes that multiply by a weight, in the graph's order; without those that
            the base has in integers already, and those of its embedding.
        embeddings: names of the base's own nodes that look rows up in a table.
        places: module -> node or weight and columns in the base graph, for modules that names in it do not find.
        base: the graph as it was before the adapter was put in, without its weights; None where nobody keeps it.
        modules: where the outputs of the adapted modules are, once `name_modules` has said so.
    """

    graph: BaseGraph
    sites: dict[str, Site] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    base: ir.Model | None = None
    modules: dict[str, ModuleOutput] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.editor = GraphEditor(self.graph.model)
        graph = self.graph.model.graph
        self.weights = frozenset(graph.initializers)
        banks = self.graph.whole.banks  # each row reads its own of these
        products = [p.node for p in find_products(graph) if not p.refusal and p.weight.name not in banks]
        products = [node for node in products if integer_product(node) is None]
        self.products = tuple(node.name for node in products if node.name and not node.name.startswith(IN_EMBEDDING))
        self.embeddings = tuple(node.name for node in find_embeddings(graph) if node.name)

    def keep_base(self) -> None:
        """Keeps the graph as it is now, and where the modules are in it: before anything is put in."""
        self.base = outline(self.graph.model)
        self.places = dict(self.graph.places)
        named = named_sites(self.graph, list(self.sites))
        for name, site in self.sites.items():
            if named.get(name) != site and not site.also:
                start, stop = site.columns
                self.places[name] = f"{site.node.name or site.weight.name}[{start}:{stop}]"
        own = self.graph.model.graph.initializers
        for tensor in self.graph.whole.alike:
            value = next((own[alias] for alias in aliases(tensor, self.graph.prefix) if alias in own), None)
            if value is not None and len(value.uses()) == 1:  # exporters make equal tensors of other modules one
                _, turned = layout_of(self.graph, value)
                name = str(value.name)
                self.editor.tensors[name] = TensorTable(tensor, name, turned, turned, (), (), None)

    def unnoted(self) -> list[str]:
        """The tensors of which tasks have their own in a form that nobody takes apart."""
        noted = {table.tensor for table in self.editor.tensors.values()}
        banks = self.graph.whole.banks.values()
        return [bank.tensor for bank in banks if bank.tensor not in noted or bank.tokens]

    def name_modules(self) -> None:
        """Names the outputs of the adapted modules after them; later changes of the graph keep these names."""
        for name, site in self.sites.items():
            value = self.editor.adapted.get(name, site.y)
            if not value.is_graph_output() and not site.packed:
                value.name = self.editor.names.free(f"{site.module}.output")
            assert value.name is not None
            bias = site.includes_bias or name in self.editor.biased
            self.modules[name] = ModuleOutput(value.name, site.columns, bias, self.editor.unused_experts.get(name, ()))
