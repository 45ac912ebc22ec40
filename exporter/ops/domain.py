"""Domain ``ai.eptx`` and how its functions get into a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import onnxscript

from eptx.manifest.names import OPERATOR_DOMAIN, OPERATOR_VERSION

#: The bodies use only operators whose schemas did not change from this opset to the newest.
MIN_OPSET = 18

eptx_domain = onnxscript.values.Opset(OPERATOR_DOMAIN, OPERATOR_VERSION)


@dataclass(frozen=True)
class Delta:
    """An operator that updates a module's output: what makes it work for several modules at once.

    Attributes:
        function: of one module. Its inputs are the base's output ``y``, the shared ones, the module's own.
        shared: names of the inputs that the modules share.
        calls: the operators that its body calls.
    """

    function: onnxscript.OnnxFunction
    shared: tuple[str, ...]
    calls: tuple[onnxscript.OnnxFunction, ...]

    @property
    def own(self) -> list[str]:
        """Names of the inputs that are one module's alone."""
        return [value for value in self.function.to_function_proto().input if value not in ("y", *self.shared)]


#: name -> operator, as `delta` has declared them.
DELTAS: dict[str, Delta] = {}


def delta(
    *shared: str, calls: Sequence[onnxscript.OnnxFunction] = ()
) -> Callable[[onnxscript.OnnxFunction], onnxscript.OnnxFunction]:
    """Declares an operator that updates a module's output, wherever it is written; `shared` are inputs' names."""

    def declare(function: onnxscript.OnnxFunction) -> onnxscript.OnnxFunction:
        DELTAS[function.name] = Delta(function, shared, tuple(calls))
        return function

    return declare


def add_functions(model: ir.Model, functions: Iterable[ir.Function]) -> None:
    """Puts `functions` into `model`, at the model's own opset; those that others call come first, as readers expect.

    Raises:
        ValueError: the model's opset is older than `MIN_OPSET` (loading a base raises it beforehand).
    """
    opset = model.opset_imports.get("", 0)
    if opset < MIN_OPSET:
        raise ValueError(f"opset {opset} is older than {MIN_OPSET}")
    by_name = {function.name: function for function in functions}
    for function in sorted(by_name.values(), key=lambda f: (_depth(f, by_name), f.name)):
        function.opset_imports[""] = opset
        model.functions[function.identifier()] = function
    model.opset_imports[OPERATOR_DOMAIN] = OPERATOR_VERSION


def _depth(function: ir.Function, by_name: Mapping[str, ir.Function]) -> int:
    """How many functions deep the calls in a body go."""
    called = [by_name[node.op_type] for node in function if node.domain == OPERATOR_DOMAIN]
    return 1 + max((_depth(other, by_name) for other in called), default=0)
