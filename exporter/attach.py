"""Editing a base graph: where an adapter's operators and constants go.

A method's ``attach`` asks this editor for the task ids, hands over its arrays, and gives the new output of each
module's product; the editor wires it, whether the product stands alone or is a block of a packed projection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
import onnxscript

from eptx.errors import LimitError, NotSupportedError
from eptx.exporter import ops
from eptx.exporter._shared import SharedSite, give_rows, values_behind
from eptx.exporter.base.site import Site
from eptx.exporter.route import Route

Mode = Literal["static", "conditioned", "dynamic"]
Routing = Literal["batch", "row"]


@dataclass(frozen=True)
class AttachPlan:
    """How an adapter goes into the graph.

    Attributes:
        mode: "conditioned" or "dynamic" (static replaces weights instead).
        routing: TuckA, dynamic: one route for the batch (as released) or one per row.
        routes: TuckA, conditioned: the frozen route of every task, by task id.
    """

    mode: Mode
    routing: Routing = "batch"
    routes: Sequence[Route] = ()


@dataclass
class Editor:
    """Adds operators to a graph.

    Attributes:
        model: the graph that is edited.
        similarities: EPT, dynamic: what each module's router saw, [batch, tasks] each.
        adapted: module -> the value that holds its adapted output.
    """

    model: ir.Model
    similarities: list[ir.Value] = field(default_factory=list)
    adapted: dict[str, ir.Value] = field(default_factory=dict)
    _task_id: ir.Value | None = None
    _constants: dict[str, ir.Value] = field(default_factory=dict)
    _pending: dict[ir.Node, list[tuple[Site, Update]]] = field(default_factory=dict)
    _functions: dict[str, onnxscript.OnnxFunction] = field(default_factory=dict)
    _new: list[ir.Node] = field(default_factory=list)
    _expanded: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._taken = {name for name in _names(self.model.graph) if name}

    def free_name(self, name: str) -> str:
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
        graph = self.model.graph
        if any(value.name == name for value in [*graph.inputs, *graph.outputs]):
            raise NotSupportedError(f"the base's graph has an input or output {name!r} of its own: rename it there")
        for value in _values(graph):
            if value.name == name:
                value.name = self.free_name(name)
        self._taken.add(name)
        return name

    @property
    def batch_dim(self) -> int | ir.SymbolicDim:
        """The leading dimension of the graph's inputs."""
        shape = self.model.graph.inputs[0].shape
        return shape[0] if shape is not None and len(shape) else ir.SymbolicDim("batch")

    def task_id(self) -> ir.Value:
        """The graph input ``task_id``, int64 [batch], added when first asked for."""
        if self._task_id is None:
            self._task_id = ir.Value(
                name=self.reserve("task_id"), type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([self.batch_dim])
            )
            self.model.graph.inputs.append(self._task_id)
        return self._task_id

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """An initializer, made when its name is first asked for; floating point arrays are stored as float32.

        Raises:
            LimitError: a value is past what float32 holds.
        """
        value = self._constants.get(name)
        if value is None:
            if array.dtype.kind == "f":
                array = _float32(name, array)
            key, name = name, self.free_name(name)
            tensor = ir.Tensor(np.array(array, order="C"), name=name)
            value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
            self.model.graph.register_initializer(value)
            self._constants[key] = value
        return value

    def node(
        self, op_type: str, inputs: Sequence[ir.Value], *, domain: str = "", outputs: int = 1, **attributes: int | str
    ) -> list[ir.Value]:
        """A node somewhere in the graph (`finish` sorts it); its outputs."""
        node = ir.node(op_type, list(inputs), attributes=attributes, domain=domain, num_outputs=outputs)
        for value in node.outputs:
            value.name = self.free_name(f"eptx_{len(self._new)}")
        self._new.append(node)
        return list(node.outputs)

    def gather(self, table: ir.Value, rows: ir.Value) -> ir.Value:
        """Rows of a table."""
        return self.node("Gather", [table, rows], axis=0)[0]

    def call(self, function: onnxscript.OnnxFunction, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
        """One of the operators of `eptx.exporter.ops` with a single output."""
        return self.call_many(function, inputs, outputs=1, **attributes)[0]

    def call_many(
        self, function: onnxscript.OnnxFunction, inputs: Sequence[ir.Value], *, outputs: int, **attributes: int
    ) -> list[ir.Value]:
        """One of the operators of `eptx.exporter.ops`."""
        self._functions[function.name] = function
        return self.node(function.name, inputs, domain=ops.DOMAIN, outputs=outputs, **attributes)

    def attention_mask(self) -> ir.Value | None:
        """The graph input ``attention_mask``, [batch, length], if there is one."""
        return next((value for value in self.model.graph.inputs if value.name == "attention_mask"), None)

    def adapt(self, site: Site, update: Update, *, per_row: bool = True) -> None:
        """Replaces a module's output by ``update(site, y)`` wherever it is read, once `finish` is called.

        Where the update differs per row and all rows share what the module reads, `update` gets a `SharedSite`: x
        and y are expanded to the rows.

        Raises:
            NotSupportedError: the update differs per row, and something behind the module's product cannot.
        """
        for place in (site, *site.also):
            if per_row and place.fixed_input:
                behind = values_behind(place, self.batch_dim)
                place = SharedSite(place.module, place.node, place.columns, (), self._expand(place.x, place.y), behind)
            elif per_row and place is not site and not self._has_rows(place.x):
                raise NotSupportedError(
                    f"{site.module} is used more than once in this graph, and not always with one input per row: use "
                    "--mode static, or TuckA with --routing batch"
                )
            self._pending.setdefault(place.node, []).append((place, update))

    def _has_rows(self, value: ir.Value) -> bool:
        batch = self.batch_dim
        return isinstance(batch, ir.SymbolicDim) and value.shape is not None and value.shape[0] == batch

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
        for node, updates in self._pending.items():
            self._replace(node, updates)
        self._pending.clear()

    def finish(self) -> None:
        """Adds the new nodes and functions to the model, in order."""
        self.wire()
        graph = self.model.graph
        graph.extend(self._new)
        try:
            graph.sort()
        except ValueError:  # a TuckA router that reads what its own route has changed
            raise NotSupportedError(
                "the adapter's router reads the output of modules that it routes: no graph computes that"
            ) from None
        if self._functions:
            ops.add_functions(self.model, self._functions.values())

    def _replace(self, node: ir.Node, updates: list[tuple[Site, Update]]) -> None:
        y = node.outputs[0]
        uses = list(y.uses())
        updates.sort(key=lambda item: item[0].columns)
        site = updates[0][0]
        base = self._expand(y, y) if isinstance(site, SharedSite) else y
        new = updates[0][1](site, base) if not site.packed else self._packed(y, updates)
        for user, index in uses:
            user.replace_input_with(index, new)
        new.type, new.shape = y.type, y.shape
        if isinstance(site, SharedSite):
            for value in (new, *site.behind):
                give_rows(value, self.batch_dim)
        self._take_over_outputs(y, new, self.free_name(f"{site.module}.base_output"))
        for place, _ in updates:
            self.adapted.setdefault(place.module, new)

    def _packed(self, y: ir.Value, updates: list[tuple[Site, Update]]) -> ir.Value:
        """Splits a packed product into its modules' columns, adapts those that are, and joins them again."""
        width = updates[0][0].packed_width
        bounds = sorted({0, width, *(bound for site, _ in updates for bound in site.columns)})
        lengths = np.diff(np.array(bounds, dtype=np.int64))
        split = self.constant(f"{updates[0][0].module}.columns", lengths)
        parts = self.node("Split", [y, split], outputs=len(lengths), axis=-1)
        by_start = {site.columns[0]: (site, update) for site, update in updates}
        adapted = [
            by_start[start][1](by_start[start][0], part) if start in by_start else part
            for start, part in zip(bounds, parts, strict=False)
        ]
        return self.node("Concat", adapted, axis=-1)[0]

    def _take_over_outputs(self, old: ir.Value, new: ir.Value, name: str) -> None:
        """A graph output that was the base product becomes the adapted one, under the same name."""
        outputs = self.model.graph.outputs
        for index, output in enumerate(outputs):
            if output is old:
                new.name, old.name = old.name, name
                outputs[index] = new


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = array.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise LimitError(f"{name} has a value of {np.abs(array).max():.3g}, which does not fit float32")
    return narrow


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value of a graph and of those inside it."""
    for inner in (graph, *graph.subgraphs()):
        yield from inner.inputs
        yield from list(inner.initializers.values())
    for node in graph.all_nodes():
        yield from node.outputs


def _names(graph: ir.Graph) -> Iterator[str | None]:
    for value in _values(graph):
        yield value.name


#: (site, base output [.., out]) -> adapted output
Update = Callable[[Site, ir.Value], ir.Value]


def module_outputs(editor: Editor, sites: Mapping[str, Site]) -> dict[str, ir.Value]:
    """Module -> the graph value that holds its output: adapted if it was, else the base product."""
    return {name: editor.adapted.get(name, site.y) for name, site in sites.items()}
