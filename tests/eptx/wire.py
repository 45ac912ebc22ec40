"""Models that are damaged along the structure of their encoding, as protocol-buffer libraries read them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from eptx.bundle.onnx_scan import ExternalData, OnnxScan


def varint(value: int, width: int = 0) -> bytes:
    """The encoding of a number, in at least `width` bytes."""
    head = bytearray()
    while value >= 0x80 or len(head) + 1 < width:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*head, value])


@dataclass(frozen=True)
class Field:
    """A field of a message, where it begins and ends, and its content's first byte."""

    number: int
    wire: int
    start: int
    content: int
    end: int


def fields(data: bytes) -> list[Field]:
    """The fields of what may be a message; none where it is none."""
    found, at = [], 0
    try:
        while at < len(data):
            start = at
            tag, at = _read(data, at)
            wire = tag & 7
            if wire == 2:
                size, at = _read(data, at)
                content, at = at, at + size
            else:
                content = at
                at = _read(data, at)[1] if wire == 0 else at + {1: 8, 5: 4}[wire]
            if at > len(data):
                return []
            found.append(Field(tag >> 3, wire, start, content, at))
    except (IndexError, KeyError):
        return []
    return found


def _read(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def mutated(data: bytes, rng: random.Random, depth: int = 0) -> bytes:
    """A message of which one field, on a random way down, is changed; lengths on the way are put right."""
    found = fields(data)
    if not found:
        return _flipped(data, rng)
    chosen = rng.choice(found)
    content = data[chosen.content : chosen.end]
    if chosen.wire == 2 and depth < 9 and content and rng.random() < 0.8:
        inner = mutated(content, rng, depth + 1)
        changed = varint(chosen.number << 3 | 2) + varint(len(inner)) + inner
    else:
        changed = _changed(chosen, content, data, rng)
    return data[: chosen.start] + changed + data[chosen.end :]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return bytes([rng.randrange(256)])
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _changed(field: Field, content: bytes, message: bytes, rng: random.Random) -> bytes:
    """What stands in a field's place: it and something that a library drops, merges, or reads in another way."""
    whole = message[field.start : field.end]
    number = rng.choice([field.number, field.number, *(f.number for f in fields(message)), rng.randrange(1, 30), 0])
    other = rng.choice([content, b"", b"EPContext", b"com.microsoft", b"../x", b"\xff"])
    value = varint(rng.choice([0, 1, 5, 20, 2**31, 2**63, 2**64 - 1, 2**64 + 7]))
    odd = {
        0: varint(number << 3) + value,
        1: varint(number << 3 | 1) + bytes(8),
        2: varint(number << 3 | 2) + varint(len(other)) + other,
        3: varint(number << 3 | 3) + rng.choice([b"", whole]) + varint(number << 3 | rng.choice([4, 4, 3])),
        4: varint(number << 3 | 4),
        5: varint(number << 3 | 5) + bytes(4),
        6: varint(number << 3 | rng.choice([6, 7])) + content,
        7: varint(number << 3 | 2, rng.randrange(2, 11)) + varint(len(other), rng.randrange(1, 11)) + other,
        8: varint((number << 3 | 2) + rng.choice([1 << 32, 1 << 35])) + varint(len(other)) + other,
        9: varint(number << 3 | 2) + varint(rng.choice([len(other) + 1, 2**31, 2**32, 2**63])) + other,
        10: whole,
        11: b"",
    }[rng.randrange(12)]
    return rng.choice([whole + odd, odd + whole, odd])


def _external(name: str, location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "8"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@cache
def whole_model() -> bytes:
    """A model with everything that a scan walks through: subgraphs, functions, training, and tensors everywhere."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])

    def graph(nodes: list[onnx.NodeProto], *tensors: TensorProto) -> onnx.GraphProto:
        return helper.make_graph(nodes, "g", [value], [value], list(tensors))

    constant = helper.make_node("Constant", [], ["c"], value=_external("c", "nested"))
    branch = helper.make_node("If", ["x"], ["y"], then_branch=graph([constant], _external("n", "inner")))
    branch.attribute.append(helper.make_attribute("list", [_external("t", "list")]))
    branch.attribute.append(helper.make_attribute("graphs", [graph([constant])]))
    branch.attribute.append(
        helper.make_attribute("s", helper.make_sparse_tensor(_external("v", "v"), _external("i", "i"), [4]))
    )
    own = helper.make_node("F", ["x"], ["y"], domain="ai.eptx")
    fused = helper.make_node("FusedMatMul", ["x", "x"], ["z"], domain="com.microsoft")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.eptx", 1)]
    function = helper.make_function("ai.eptx", "F", ["x"], ["y"], [constant, own], opsets)
    function.attribute_proto.append(helper.make_attribute("default", _external("d", "default")))
    body = graph([branch, own, fused], _external("w", "data"))
    body.sparse_initializer.append(helper.make_sparse_tensor(_external("s", "sparse"), _external("j", "j"), [4]))
    model = helper.make_model(body, opset_imports=opsets, functions=[function])
    training = model.training_info.add()
    training.initialization.CopyFrom(graph([helper.make_node("Start", [], ["c"])], _external("b", "begin")))
    training.algorithm.CopyFrom(graph([helper.make_node("Step", [], ["c"])]))
    return bytes(model.SerializeToString())


def corpus(count: int, seed: int) -> list[bytes]:
    """So many models, of one mutation or of several."""
    rng, models = random.Random(seed), []
    for _ in range(count):
        data = whole_model()
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            data = mutated(data, rng)
        models.append(data)
    return models


def as_protobuf_reads(data: bytes) -> OnnxScan:
    """What the onnx package's protocol-buffer library finds in a model.

    Raises:
        ValueError: it does not read the bytes.
    """
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as e:  # DecodeError, whose module depends on the library's build
        raise ValueError(str(e)) from None
    scan = OnnxScan()
    scan.opsets |= {(o.domain, o.version) for o in model.opset_import}
    _graph(model.graph, scan)
    for training in model.training_info:
        _graph(training.initialization, scan)
        _graph(training.algorithm, scan)
    for function in model.functions:
        scan.functions.add((function.domain, function.name))
        scan.opsets |= {(o.domain, o.version) for o in function.opset_import}
        _nodes(function.node, scan)
        for attribute in function.attribute_proto:
            _attribute(attribute, scan)
    return scan


def _graph(graph: onnx.GraphProto, scan: OnnxScan) -> None:
    _nodes(graph.node, scan)
    for tensor in graph.initializer:
        _tensor(tensor, scan)
    for sparse in graph.sparse_initializer:
        _sparse(sparse, scan)


def _nodes(nodes: list[onnx.NodeProto], scan: OnnxScan) -> None:
    for node in nodes:
        scan.operators.add((node.domain, node.op_type))
        for attribute in node.attribute:
            _attribute(attribute, scan)


def _attribute(attribute: onnx.AttributeProto, scan: OnnxScan) -> None:
    for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
        _tensor(tensor, scan)
    for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
        _graph(graph, scan)
    single = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for sparse in (*single, *attribute.sparse_tensors):
        _sparse(sparse, scan)


def _sparse(sparse: onnx.SparseTensorProto, scan: OnnxScan) -> None:
    _tensor(sparse.values, scan)
    _tensor(sparse.indices, scan)


def _tensor(tensor: TensorProto, scan: OnnxScan) -> None:
    if not tensor.external_data:
        return
    pairs = [(entry.key, entry.value) for entry in tensor.external_data]
    numbers = {key: int(value) for key, value in pairs if key in ("offset", "length")}
    for location in [value for key, value in pairs if key == "location"] or [""]:
        scan.external.append(ExternalData(location, numbers.get("offset", 0), numbers.get("length")))
