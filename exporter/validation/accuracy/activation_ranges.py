"""Activations that are rounded to a fixed range: the range must fit the values.

A range that is too narrow cuts values off; one that is too wide rounds them to a few steps. The weights are right in
both cases, so no other check notices. The values are those of a copy of the graph that rounds no activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from eptx.bundle import Bundle
from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.validation.quantized.codes import array_of
from eptx.exporter.validation.quantized.float_activations import rounded, use_float_activations
from eptx.runtime.validation.batch import Batch, rows_alone
from eptx.runtime.validation.check import Check
from eptx.runtime.validation.running.backends import Backend
from eptx.runtime.validation.running.decode_loop import DecodeLoop, Values
from eptx.runtime.validation.running.models import run_graph

#: The share of values that may lie outside a range, which was found on other rows. The largest one measured is 0.0008.
OUTSIDE = 0.01
#: The largest width of a range relative to the values: a wider one leaves them less than ten of its 256 steps.
WIDTH = 25.6

#: Shorter rows are no real texts: some of their values are larger.
_SHORTEST = 8

_LOW, _HIGH, _OUT = "eptx_range_low_", "eptx_range_high_", "eptx_range_out_"


@dataclass
class _Range:
    """One QuantizeLinear: the numbers that it can hold, and the values that were seen.

    Attributes:
        name: the module whose input it is.
        value: what it rounds.
        low, high: the least and largest number that it gives.
    """

    name: str
    value: ir.Value
    low: float
    high: float
    agree: bool = True
    seen_low: float = math.inf
    seen_high: float = -math.inf
    shares: list[float] = field(default_factory=list)

    def see(self, low: float, high: float, outside: float) -> None:
        """Adds one run."""
        self.seen_low, self.seen_high = min(self.seen_low, low), max(self.seen_high, high)
        self.shares.append(outside)

    @property
    def outside(self) -> float:
        """The share of values outside the range."""
        return float(np.mean(self.shares)) if self.shares else 0.0

    @property
    def width(self) -> float:
        """Its width relative to the values; both include 0."""
        seen = max(self.seen_high, 0.0) - min(self.seen_low, 0.0)
        return (self.high - self.low) / seen if seen > 0 else 1.0

    @property
    def wrong(self) -> str | None:
        """What is wrong with it."""
        if not self.agree:
            return "its input is rounded in one range and read in another"
        has = f"its input is rounded within {self.low:.4g} to {self.high:.4g}"
        seen = f"the values are {self.seen_low:.4g} to {self.seen_high:.4g}"
        if not self.outside <= OUTSIDE:
            return f"{has}, {seen}, so {self.outside:.1%} of them are cut off"
        if not self.width <= WIDTH:
            return f"{has}, {seen}: the range is {self.width:.3g} times too wide"
        return None


def check_ranges(
    bundle: Bundle, batches: Sequence[Batch], backend: Backend, named: Callable[[], Sequence[Batch]] = list
) -> list[Check]:
    """Checks every fixed range of a bundle against the values of some batches.

    Args:
        bundle: of any precision; without fixed ranges nothing runs.
        batches: what to run. The rows of a padded batch run one by one, since values at padding do not count.
        backend: how it runs.
        named: gives the rows on which the ranges were found, if the bundle names them: then those are run.
    """
    main, ranges = _with_extents(bundle, "")
    encoder = bundle.manifest.encoder
    first, first_ranges = _with_extents(bundle, encoder.file) if encoder is not None else (b"", [])
    if not ranges and not first_ranges:
        return []
    run = run_graph(bundle, main, backend)
    encode = run_graph(bundle, first, backend) if first else None
    for one in (row for batch in named() or batches for row in rows_alone(batch)):
        if one.length < _SHORTEST:
            continue
        calls = DecodeLoop(bundle.manifest, one)
        for values in calls.run(run, encode):
            _see(ranges, values)
        _see(first_ranges, calls.encoded)
    return [Check(f"{one.name}: range of its input", "run", one.wrong) for one in (*first_ranges, *ranges)]


def _see(ranges: Sequence[_Range], values: Values) -> None:
    for index, one in enumerate(ranges):
        one.see(*(float(values[f"{kind}{index}"]) for kind in (_LOW, _HIGH, _OUT)))


def _with_extents(bundle: Bundle, file: str) -> tuple[bytes, list[_Range]]:
    """A copy of a graph that rounds no activation but gives the extent of each that was rounded; and the ranges."""
    model = ir.load((bundle.path / file if file else bundle.model).absolute())
    ranges = list(_ranges(model.graph))
    if not ranges and not file:
        return b"", []
    use_float_activations(model.graph)
    for index, one in enumerate(ranges):
        _add_outputs(model.graph, index, one)
    return ir.to_proto(model).SerializeToString(), ranges


def _ranges(graph: ir.Graph) -> Iterator[_Range]:
    """The range of every activation that is rounded to a fixed one, once."""
    readers = {id(product.node.inputs[0]): product.node for product in reversed(find_products(graph))}
    seen: set[tuple[ir.Value, bool]] = set()
    for node in graph:
        coarse = rounded(node)
        if coarse is None or coarse.inputs[0] is None:
            continue
        x, (scale, zero), before = coarse.inputs[0], _grid(node), _grid(coarse)
        if scale is None or scale.size != 1:
            continue
        agree = all(_same(mine, its) for mine, its in zip((scale, zero), before, strict=True))
        if (x, agree) in seen:
            continue
        seen.add((x, agree))
        limits = np.iinfo(zero.dtype if zero is not None else np.uint8)
        step, middle = float(scale.reshape(())), float(zero.reshape(())) if zero is not None else 0.0
        reader = readers.get(id(node.outputs[0]))
        name = x.name or "" if reader is None else (reader.name or "").rpartition("/")[0].strip("/").replace("/", ".")
        yield _Range(name, x, (limits.min - middle) * step, (limits.max - middle) * step, agree)


def _grid(node: ir.Node) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The scale and the zero point of a QuantizeLinear or a DequantizeLinear."""
    return array_of(node.inputs[1]), array_of(node.inputs[2]) if len(node.inputs) > 2 else None


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def _add_outputs(graph: ir.Graph, index: int, one: _Range) -> None:
    """Makes the least value, the largest one and the share outside the range outputs of the graph."""
    edge = 0.5 * (one.high - one.low) / 255
    low, high = (
        add_initializer(graph, f"{kind}limit_{index}", np.array(limit, np.float32))
        for kind, limit in ((_LOW, one.low - edge), (_HIGH, one.high + edge))
    )
    less, more = ir.node("Less", [one.value, low]), ir.node("Greater", [one.value, high])
    either = ir.node("Or", [less.outputs[0], more.outputs[0]])
    share = ir.node("Cast", [either.outputs[0]], {"to": int(ir.DataType.FLOAT)})
    last = {
        _LOW: ir.node("ReduceMin", [one.value], {"keepdims": 0}),
        _HIGH: ir.node("ReduceMax", [one.value], {"keepdims": 0}),
        _OUT: ir.node("ReduceMean", [share.outputs[0]], {"keepdims": 0}),
    }
    graph.extend([less, more, either, share, *last.values()])
    for number, node in enumerate((less, more, either, share)):
        node.outputs[0].name = f"eptx_range_{index}_{number}"
    for kind, node in last.items():
        output = node.outputs[0]
        output.name, output.type, output.shape = f"{kind}{index}", ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        graph.outputs.append(output)
