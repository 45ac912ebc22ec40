"""Runs in a release's own Python, with onnxruntime alone: what the release is the first or the last to read.

    python facts.py

Says as JSON the newest IR version and opset that it loads, and where the wheel shows its operators of com.microsoft:
each one's attributes, how many inputs it takes, and whether CPUs have a kernel.
"""

import json

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as binding


def _varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def _field(number: int, value) -> bytes:  # type: ignore[no-untyped-def]
    """A field of a protocol-buffer message: a number, or bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _value(name: bytes) -> bytes:
    """A ValueInfoProto: float [2]."""
    tensor = _field(1, 1) + _field(2, _field(1, _field(1, 2)))
    return _field(1, name) + _field(2, _field(1, tensor))


def loads(ir_version: int, opset: int) -> bool:
    """Whether it loads y = Abs(x) of these versions."""
    node = _field(1, b"x") + _field(2, b"y") + _field(4, b"Abs")
    graph = _field(1, node) + _field(2, b"g") + _field(11, _value(b"x")) + _field(12, _value(b"y"))
    model = _field(1, ir_version) + _field(7, graph) + _field(8, _field(2, opset))
    try:
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def operators():  # type: ignore[no-untyped-def]
    """Its operators of com.microsoft; None where the wheel does not show them."""
    if not hasattr(binding, "get_all_operator_schema"):
        return None
    on_cpu = {k.op_name for k in binding.get_all_opkernel_def() if k.domain == "com.microsoft" and "CPU" in k.provider}
    return {
        s.name: {"attributes": sorted(s.attributes), "inputs": s.max_input, "cpu": s.name in on_cpu}
        for s in binding.get_all_operator_schema()
        if s.domain == "com.microsoft"
    }


if __name__ == "__main__":
    onnxruntime.set_default_logger_severity(4)
    newest_ir = max(version for version in range(8, 20) if loads(version, 18))
    newest_opset = max(opset for opset in range(18, 40) if loads(8, opset))
    found = {"version": onnxruntime.__version__, "ir_version": newest_ir, "opset": newest_opset}
    print(json.dumps({**found, "operators": operators()}))
