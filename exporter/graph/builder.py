"""Adding to a graph: constants, nodes, functions, inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import onnxscript

from eptx.errors import LimitError
from eptx.exporter import ops
from eptx.exporter.adapters.updates import TaskTable, TensorTable
from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.graph.names import Names
from eptx.manifest.names import OPERATOR_DOMAIN, PAST, TASK_ID


@dataclass
class GraphBuilder:
    """Adds to a graph.

    Attributes:
        model: the graph that is changed.
        exact: names of constants that are never rounded: a rounded router chooses otherwise where two experts are
            close, and routers are small.
        wide: nodes that compute in float32 where the graph computes in float16.
        tables: names of the constants that have an entry for each task -> what they hold: of one module, or of those
            that are packed in one product.
        tensors: names of the constants that have tasks' own tensors -> what they hold.
        prefix: how the names of its nodes begin: no other builder of the graph has the same.
    """

    model: ir.Model
    prefix: str = "eptx_"
    exact: set[str] = field(default_factory=set)
    wide: set[ir.Node] = field(default_factory=set)
    tables: dict[str, dict[str, TaskTable]] = field(default_factory=dict)
    tensors: dict[str, TensorTable] = field(default_factory=dict)
    _task_id: ir.Value | None = None
    _rows: ir.Value | None = None
    _constants: dict[str, ir.Value] = field(default_factory=dict)
    _contents: dict[tuple[tuple[int, ...], str, bytes], ir.Value] = field(default_factory=dict)
    _functions: dict[str, ir.Function] = field(default_factory=dict)
    _new: list[ir.Node] = field(default_factory=list)
    _made: int = 0

    def __post_init__(self) -> None:
        self.names = Names(self.model.graph)

    @property
    def batch_dim(self) -> int | ir.SymbolicDim:
        """The leading dimension of the graph's inputs."""
        shape = self.model.graph.inputs[0].shape
        return shape[0] if shape is not None and len(shape) else ir.SymbolicDim("batch")

    @property
    def row_dims(self) -> set[int | ir.SymbolicDim]:
        """The leading dimensions of the graph's inputs: one, or one for the texts and one for the images (CLIP)."""
        shapes = [value.shape for value in self.model.graph.inputs if value is not self._task_id]
        return {shape[0] for shape in shapes if shape is not None and len(shape)}

    @property
    def has_task_id(self) -> bool:
        """Whether somebody has asked for `task_id`."""
        return self._task_id is not None

    def task_id(self) -> ir.Value:
        """The graph input ``task_id``, int64, added when first asked for.

        It is [batch]. Where texts and images are batches of their own, it is [1]: the task of all of them.
        """
        if self._task_id is None:
            rows = 1 if len(self.row_dims) > 1 else None
            self._task_id = self.add_input(TASK_ID, ir.DataType.INT64, rows=rows)
        return self._task_id

    def rows(self) -> ir.Value:
        """int64 [batch], each row's own number: the route of rows whose tables are made for them."""
        if self._rows is None:
            zero, one = self.constant("rows.zero", np.array(0)), self.constant("rows.one", np.array(1))
            self._rows = self.node("Range", [zero, self.node("Size", [self.task_id()])[0], one])[0]
        return self._rows

    def constant(self, name: str, array: np.ndarray, *, exact: bool = False) -> ir.Value:
        """An initializer, made when its name is first asked for; floating point arrays are stored as float32.

        Equal tables of integers are one initializer: ONNX Runtime would look for them whenever a session opens. One
        that is `exact` stays float32 however the bundle is stored.

        Raises:
            LimitError: a value is past what float32 holds.
        """
        value = self._constants.get(name)
        if value is None:
            if array.dtype.kind == "f":
                array = _float32(name, array)
            content = (array.shape, array.dtype.str, array.tobytes() if array.dtype.kind == "i" else name.encode())
            value = self._contents.get(content)
            if value is None:
                value = add_initializer(self.model.graph, self.names.free(name), np.array(array, order="C"))
            self._constants[name] = self._contents[content] = value
            if exact:
                self.exact.add(str(value.name))
        return value

    def declare(self, constant: ir.Value, table: TaskTable) -> None:
        """Says that a constant has an entry for each task. Whoever makes such a constant declares it."""
        self.tables.setdefault(str(constant.name), {})[table.module] = table

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        *,
        domain: str = "",
        outputs: int = 1,
        **attributes: int | str | list[int],
    ) -> list[ir.Value]:
        """A node somewhere in the graph (`finish` sorts it); its outputs."""
        # a node without a name gets one of the graph, which counts the nodes that it ever had
        name = f"{self.prefix}{op_type}_{self._made}"
        node = ir.node(op_type, list(inputs), attributes=attributes, domain=domain, num_outputs=outputs, name=name)
        for value in node.outputs:
            value.name = self.names.free(f"{self.prefix}{self._made}")
        self._new.append(node)
        self._made += 1
        return list(node.outputs)

    def settle(self) -> None:
        """Puts the new nodes into the graph, behind its own: whoever looks for nodes there finds them."""
        self.model.graph.extend(self._new)
        self._new.clear()

    def gather(self, table: ir.Value, rows: ir.Value) -> ir.Value:
        """Rows of a table."""
        return self.node("Gather", [table, rows], axis=0)[0]

    def call(
        self,
        operator: onnxscript.OnnxFunction,
        inputs: Sequence[ir.Value],
        modules: int = 1,
        *,
        packed: bool = False,
        biased: bool = False,
        **attributes: int,
    ) -> list[ir.Value]:
        """One of the operators of `eptx.exporter.ops`, or the one that does its work for several modules."""
        function, *_ = [self._function(part) for part in ops.single(operator)]
        if packed:
            function = self._function(ops.packed(operator, modules))
        elif modules > 1:
            function = self._function(ops.grouped(operator, modules))
        if biased:
            function = self._function(ops.biased(function, 1 if packed else modules))
        return self.node(function.name, inputs, domain=OPERATOR_DOMAIN, outputs=len(function.outputs), **attributes)

    def _function(self, function: ir.Function) -> ir.Function:
        return self._functions.setdefault(function.name, function)

    def add_input(
        self, name: str, dtype: ir.DataType, *dims: int, rows: int | ir.SymbolicDim | None = None
    ) -> ir.Value:
        """A new graph input [batch, *dims], or [rows, *dims]."""
        shape = ir.Shape([self.batch_dim if rows is None else rows, *dims])
        value = ir.Value(name=self.names.reserve(name), type=ir.TensorType(dtype), shape=shape)
        self.model.graph.inputs.append(value)
        return value

    def add_output(
        self, name: str, value: ir.Value, dtype: ir.DataType, *dims: int, rows: int | ir.SymbolicDim | None = None
    ) -> None:
        """Makes a new value [batch, *dims], or [rows, *dims], an output of the graph."""
        value.name, value.type = self.names.reserve(name), ir.TensorType(dtype)
        value.shape = ir.Shape([self.batch_dim if rows is None else rows, *dims])
        self.model.graph.outputs.append(value)

    def attention_mask(self) -> ir.Value | None:
        """The graph input ``attention_mask`` for the positions of this call, [batch, length], if there is one.

        With a cache the input has the past's positions too, before those.
        """
        graph = self.model.graph
        mask = next((value for value in graph.inputs if value.name == "attention_mask"), None)
        if mask is None or not any(value.name and value.name.startswith(PAST) for value in graph.inputs):
            return mask
        length = self.node("Shape", [graph.inputs[0]], start=1, end=2)[0]
        past = [self.node("Neg", [length])[0], self.constant("mask.end", np.array([1 << 62]))]
        return self.node("Slice", [mask, *past, self.constant("mask.axis", np.array([1]))])[0]

    def counted_positions(self, x: ir.Value, *, per_row: bool) -> ir.Value:
        """A mask for the positions that a mean is over, of x [N, L, in] or [N, in], also with rows and positions flat.

        Args:
            x: what the mean is over.
            per_row: whether each row has a mean of its own, over its unpadded positions [N, L]; else there is one over
                everything, [1, N * L].
        """
        pooled = x.shape is not None and len(x.shape) == 2 and self.has_rows(x)
        mask = self.attention_mask() if per_row and not pooled else None
        if mask is not None:
            return mask
        positions = self.node("Shape", [x], start=0, end=-1)[0]
        ones = self.node("Expand", [self.constant("positions.one", np.ones(1)), positions])[0]
        if not per_row:
            return self.node("Reshape", [ones, self.constant("positions.one_row", np.array([1, -1]))])[0]
        return self.node("Unsqueeze", [ones, self.constant("positions.axis", np.array([1]))])[0] if pooled else ones

    def has_rows(self, value: ir.Value) -> bool:
        """Whether a value's first axis is known to be a batch's."""
        batches = {dim for dim in self.row_dims if isinstance(dim, ir.SymbolicDim)}
        return value.shape is not None and len(value.shape) > 0 and value.shape[0] in batches


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = array.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise LimitError(f"{name} has a value of {np.abs(array).max():.3g}, which does not fit float32")
    return narrow
