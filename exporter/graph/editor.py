"""Editing a base graph: where an adapter's operators and constants go.

A method's ``attach`` asks this editor for the task ids, hands over its arrays, and says what changes each module's
product; the editor wires it, whether the product stands alone or is a block of a packed projection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from eptx.errors import NotSupportedError
from eptx.exporter import ops
from eptx.exporter.adapters.updates import TaskTable
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.builder import GraphBuilder
from eptx.exporter.graph.by_row import Vectors, across, apply
from eptx.exporter.graph.delta import Delta, Place, in_groups
from eptx.exporter.graph.shared_input import SharedSite, give_rows, values_behind


@dataclass
class GraphEditor(GraphBuilder):
    """Puts an adapter's operators into a graph.

    Attributes:
        similarities: what operators give beside adapted outputs: how much each row resembles each task as a module's
            router sees it, [batch, tasks] each.
        adapted: module -> the value that holds its adapted output.
        biased: the modules whose adapted output has the base's bias in it.
        own: names of the base's initializers of which each row reads its own variant.
        unused_experts: module -> the adapter's experts that are not in the graph.
    """

    similarities: list[ir.Value] = field(default_factory=list)
    adapted: dict[str, ir.Value] = field(default_factory=dict)
    biased: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    unused_experts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _places: list[Place] = field(default_factory=list)
    _vectors: dict[Site, Vectors] = field(default_factory=dict)
    _expanded: dict[ir.Value, ir.Value] = field(default_factory=dict)
    _casts: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def places(self, site: Site) -> list[Site]:
        """All products of a module, where an update of it that differs per row has to go; see `place`."""
        return [self.place(site, place) for place in (site, *site.also)]

    def place(self, site: Site, place: Site, *, per_row: bool = True) -> Site:
        """One of a module's products, as an update of it needs it.

        Where the update differs per row and all rows share what the module reads, it is a `SharedSite`: x and y are
        expanded to the rows.

        Raises:
            NotSupportedError: the update differs per row, and something behind the module's product cannot.
        """
        if per_row and place.fixed_input:
            behind = values_behind(place, self.batch_dim)
            return SharedSite(place.module, place.node, place.columns, (), (), self._expand(place.x, place.y), behind)
        if per_row and place is not site and not self.has_rows(place.x):
            raise NotSupportedError(
                f"{site.module} is used more than once in this graph, and not always with one input per row: use "
                "--mode static, or --routing batch where the adapter has it"
            )
        return place

    def in_order(self, sites: Iterable[Site]) -> list[Site]:
        """Products as the graph has them."""
        position = {node: index for index, node in enumerate(self.model.graph)}
        return sorted(sites, key=lambda site: (position[site.node], site.columns))

    def adapt(self, site: Site, delta: Delta, *, on_input: bool = False) -> None:
        """Replaces a product by its update wherever it is read, once `finish` is called.

        With `on_input` the product stays, and reads an updated x: only for a product of one module.
        """
        self._places.append(Place(site, delta, on_input))

    def multiply(self, site: Site, vectors: Vectors) -> None:
        """Has a product, updated or not, multiplied and shifted by each row's vectors, by its `task_id`.

        Raises:
            NotSupportedError: the input of a packed product's module alone is multiplied.
        """
        if vectors.input_gain is not None and site.packed:
            raise NotSupportedError(
                f"{site.module}: a task scales its input, which other modules of the same product read as well: "
                "use --mode static"
            )
        if vectors:
            self._vectors[site] = vectors

    def shift(self, site: Site, vector: np.ndarray) -> None:
        """Adds a vector [out] to a module's product wherever that is read, whatever the row; for a folded task."""
        for place in (site, *site.also):
            whole = across([(place, vector[None])], 0.0)
            assert whole is not None
            uses = list(place.y.uses())
            own = self.like(self.constant(f"{site.module}.shift", whole[0]), place.y)
            shifted = self.node("Add", [place.y, own])[0]
            self.replace(place.y, shifted, uses)
            self.adapted.setdefault(site.module, shifted)

    def float32(self, value: ir.Value) -> ir.Value:
        """The value as the operators take it: cast where the graph computes in float16."""
        if value.dtype != ir.DataType.FLOAT16:
            return value
        if value not in self._casts:
            self._casts[value] = self.node("Cast", [value], to=int(ir.DataType.FLOAT))[0]
        return self._casts[value]

    def like(self, value: ir.Value, other: ir.Value) -> ir.Value:
        """What an operator gave, in the type of the graph."""
        return self.node("Cast", [value], to=int(other.dtype))[0] if other.dtype == ir.DataType.FLOAT16 else value

    def _expand(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """A value [1, ...] that all rows share, of the rank of another, once per row."""
        if value not in self._expanded:
            assert like.shape is not None
            rows = self.node("Shape", [self.model.graph.inputs[0]], start=0, end=1)[0]
            ones = self.constant(f"rows.of_rank_{len(like.shape)}", np.ones(len(like.shape) - 1, dtype=np.int64))
            shape = self.node("Concat", [rows, ones], axis=0)[0]
            self._expanded[value] = self.node("Expand", [value, shape])[0]
        return self._expanded[value]

    def wire(self) -> None:
        """Puts the adapted outputs in the place of the base's; graph outputs keep their names."""
        gained = {site.y for site, own in self._vectors.items() if own.gain is not None}
        for site in (*(place.site for place in self._places), *self._vectors):
            if site.bias is not None and (site.y in gained or site.bias.name in self.own):
                self._take_bias_out(site, site.bias)
        by_row = {site.y for site in self._vectors}
        places = {place.site: self._with_bias_apart(place, by_row) for place in self._places}
        outputs: dict[Site, ir.Value] = {}
        for group in in_groups([places[site] for site in self.in_order(places)], key=lambda place: place.node):
            outputs |= self._adapt_inputs(group) if group[0].on_input else self._adapt_group(group)
        for sites in in_groups([s for s in self.in_order({*places, *self._vectors}) if s.y in by_row], lambda s: s.y):
            outputs |= self._multiply_group(sites, outputs)
        for site in (*places, *self._vectors):
            self.adapted.setdefault(site.module, outputs[site])
        self._places.clear()
        self._vectors.clear()

    def finish(self) -> None:
        """Adds the new nodes and functions to the model, in order."""
        self.wire()
        self.settle()
        try:
            self.model.graph.sort()
        except ValueError:  # the router reads what its own route has changed
            raise NotSupportedError(
                "the adapter's router reads the output of modules that it routes: no graph computes that"
            ) from None
        if self._functions:
            ops.add_functions(self.model, self._functions.values())

    def _adapt_group(self, group: Sequence[Place]) -> dict[Site, ir.Value]:
        """Changes the products of a group by one node; what has the adapted outputs."""
        first = group[0]
        products = {place.site.y: place.bias for place in group}  # a packed one is all its modules'
        biases = [node for node in products.values() if node is not None]
        replaced = {y: y if bias is None else bias.outputs[0] for y, bias in products.items()}
        uses = {y: list(value.uses()) for y, value in replaced.items()}
        inputs = [self._expand(y, y) if isinstance(first.site, SharedSite) else self.float32(y) for y in products]
        inputs += [value for node in biases for value in node.inputs if value is not None and value not in products]
        if first.site.packed:
            columns = np.array([bound for place in group for bound in place.site.columns])
            inputs.append(self.constant(f"{first.site.module}.columns", columns))
        inputs += [
            self.float32(first.site.x),
            *first.delta.shared,
            *(value for place in group for value in place.delta.own),
        ]
        new = self.call(
            first.delta.operator,
            inputs,
            len(group),
            packed=first.site.packed,
            biased=bool(biases),
            **first.delta.attributes,
        )
        adapted = {y: self.like(value, y) for y, value in zip(products, new, strict=False)}
        self.similarities += new[len(products) :]
        for y, value in adapted.items():
            self.replace(replaced[y], value, uses[y])
        self.model.graph.remove(biases)
        for place in group:
            if biases:
                self.biased.add(place.site.module)
            if isinstance(place.site, SharedSite):
                for value in (adapted[place.site.y], *place.site.behind):
                    give_rows(value, self.batch_dim)
        return {place.site: adapted[place.site.y] for place in group}

    def _adapt_inputs(self, group: Sequence[Place]) -> dict[Site, ir.Value]:
        """Gives the products of a group updated inputs, all by one node; the products stay their outputs."""
        delta, x = group[0].delta, self.float32(group[0].site.x)
        inputs = [x] * len(group) + [x, *delta.shared, *(value for place in group for value in place.delta.own)]
        new = self.call(delta.operator, inputs, len(group), packed=False, biased=False, **delta.attributes)
        for place, updated in zip(group, new, strict=True):
            value = self.like(updated, place.site.x)
            value.type, value.shape = place.site.x.type, place.site.x.shape
            place.site.feed(value)
        return {place.site: place.site.y for place in group}

    def _with_bias_apart(self, place: Place, by_row: Collection[ir.Value]) -> Place:
        """A place whose bias the operator does not add, where the product is multiplied or the rows have their own."""
        bias = place.bias
        read = [] if bias is None else [value.name for value in bias.inputs if value is not None]
        return replace(place, bias_apart=place.site.y in by_row or not self.own.isdisjoint(read))

    def _multiply_group(self, sites: Sequence[Site], outputs: Mapping[Site, ir.Value]) -> dict[Site, ir.Value]:
        """Multiplies and shifts one product by its modules' vectors, each row by its task's; what has the results."""
        first, found = sites[0], [(site, self._vectors[site]) for site in sites if site in self._vectors]
        adapted = next((outputs[site] for site in sites if site in outputs), first.y)
        uses = list(adapted.uses())
        shared = isinstance(first, SharedSite)
        value = self._expand(adapted, adapted) if shared and adapted is first.y else self.float32(adapted)
        for op_type, kind, neutral in (("Mul", "gain", 1.0), ("Add", "shift", 0.0)):
            whole = across([(site, getattr(own, kind)) for site, own in found], neutral)
            if whole is not None:
                table = self.constant(f"{found[0][0].module}.{kind}", whole)
                self._declare(table, kind, found)
                rows = self.gather(table, self.task_id())
                value = apply(self, op_type, value, first.y, rows)
        if value is not adapted:
            value = self.like(value, first.y)
            self.replace(adapted, value, uses)
        for site, own in found:
            if own.input_gain is not None:
                self._multiply_input(site, own.input_gain)
        if isinstance(first, SharedSite):
            for behind in (value, *first.behind):
                give_rows(behind, self.batch_dim)
        return dict.fromkeys(sites, value)

    def _declare(self, table: ir.Value, part: str, modules: Iterable[tuple[Site, Vectors]]) -> None:
        for site, own in modules:
            if any(own.sizes[part]):
                start = 0 if part == "input_gain" else site.columns[0]
                self.declare(table, TaskTable(site.module, part, 0, own.sizes[part], start))

    def _multiply_input(self, site: Site, vectors: np.ndarray) -> None:
        """Has a product read its input multiplied by each row's vector; what was put behind it still reads x."""
        table = self.constant(f"{site.module}.input_gain", vectors)
        self._declare(table, "input_gain", [(site, self._vectors[site])])
        own = self.gather(table, self.task_id())
        scaled = self.like(apply(self, "Mul", self.float32(site.x), site.x, own), site.x)
        scaled.type, scaled.shape = site.x.type, site.x.shape
        site.feed(scaled)

    def _take_bias_out(self, site: Site, bias: ir.Value) -> None:
        """Makes the bias that a product's node adds a node of its own."""
        site.take_bias()
        uses, added = list(site.y.uses()), ir.node("Add", [site.y, bias])
        added.outputs[0].name = self.names.free(f"{site.y.name}.biased")
        self.model.graph.insert_after(site.node, added)
        self.replace(site.y, added.outputs[0], uses)

    def replace(self, y: ir.Value, new: ir.Value, uses: Iterable[tuple[ir.Node, int]]) -> None:
        """Puts an adapted output in the place of the base's."""
        for user, index in uses:
            user.replace_input_with(index, new)
        new.type, new.shape = y.type, y.shape
        for index, output in enumerate(self.model.graph.outputs):
            if output is y:
                new.name, y.name = y.name, self.names.free(f"{y.name}.base")
                self.model.graph.outputs[index] = new
