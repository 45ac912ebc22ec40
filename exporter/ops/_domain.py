"""Domain ``ai.eptx`` and how its functions get into a model."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir
import onnxscript

DOMAIN = "ai.eptx"
VERSION = 1
#: The bodies use only operators whose schemas did not change from this opset to the newest.
MIN_OPSET = 18

eptx_domain = onnxscript.values.Opset(DOMAIN, VERSION)


def add_functions(model: ir.Model, functions: Iterable[ir.Function]) -> None:
    """Puts `functions` into `model`, at the model's own opset; those that others call come first, as readers expect.

    Raises:
        ValueError: the model's opset is older than `MIN_OPSET` (loading a base raises it beforehand).
    """
    opset = model.opset_imports.get("", 0)
    if opset < MIN_OPSET:
        raise ValueError(f"opset {opset} is older than {MIN_OPSET}")
    for function in sorted(functions, key=lambda f: (DOMAIN in f.opset_imports, f.name)):
        function.opset_imports[""] = opset
        model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = VERSION
