"""The scan of ``.onnx`` files finds what the onnx package finds, and survives any bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from eptx.bundle import onnx_scan
from eptx.bundle.onnx_scan import ExternalData, scan_bytes, scan_onnx
from eptx.errors import BundleError
from tests.support.tiny_bundle import tiny_model


def _external(name: str, location: str, **entries: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _graph(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    return helper.make_graph(list(nodes), "g", [value], [value], list(initializers))


def _model(graph: onnx.GraphProto, *functions: onnx.FunctionProto) -> bytes:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.eptx", 1)]
    data = helper.make_model(graph, opset_imports=opsets, functions=functions).SerializeToString()
    return bytes(data)


def test_every_place_that_can_name_a_file() -> None:
    sparse = helper.make_sparse_tensor(_external("s", "sparse"), _external("i", "indices"), [4])
    inner = _graph(
        helper.make_node("Constant", [], ["c"], value=_external("c", "nested")),
        initializers=(_external("n", "nested_initializer"),),
    )
    list_attribute = helper.make_attribute("tensors", [_external("t", "list")])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner)
    node.attribute.append(list_attribute)
    constant = helper.make_node("Constant", [], ["y"], value=_external("f", "function"))
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("ai.eptx", "F", ["x"], ["y"], [constant], opsets)
    function.attribute_proto.append(helper.make_attribute("default", _external("d", "default")))
    graph = _graph(node, initializers=(_external("w", "data", offset="64", length="16"),))
    graph.sparse_initializer.append(sparse)
    scan = scan_bytes(_model(graph, function))
    assert {e.location for e in scan.external} == {
        *("data", "sparse", "indices", "nested", "nested_initializer", "list", "function", "default")
    }
    assert ExternalData("data", 64, 16) in scan.external
    assert scan.operators == {("", "If"), ("", "Constant")}
    assert scan.functions == {("ai.eptx", "F")}
    assert scan.opsets == {("", 17), ("ai.eptx", 1)}


def test_all_locations_of_a_weight_count() -> None:
    tensor = _external("w", "inside")
    tensor.external_data.add(key="location", value="../outside")
    assert {e.location for e in scan_bytes(_model(_graph(initializers=(tensor,)))).external} == {
        "inside",
        "../outside",
    }


@pytest.mark.parametrize("entry", [{"offset": "-1"}, {"length": "1e3"}, {"offset": ""}, {"length": "9" * 30}])
def test_odd_numbers(entry: dict[str, str]) -> None:
    with pytest.raises(BundleError, match="is not one number"):
        scan_bytes(_model(_graph(initializers=(_external("w", "data", **entry),))))


def test_weights_are_not_read(tmp_path: Path) -> None:
    big = numpy_helper.from_array(np.zeros(50_000_000, np.int8), "big")
    path = tmp_path / "model.onnx"
    path.write_bytes(_model(_graph(initializers=(big,))))
    before = _bytes_read()
    scan_onnx(path)
    assert _bytes_read() - before < 1_000_000


def _bytes_read() -> int:
    """By this process since it began, from the page cache as well."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("the system does not count what a process reads")
    return int(counters.read_text().split("rchar: ")[1].split()[0])


def _epcontext(more: bytes) -> bytes:
    """A model of one node, ``com.microsoft`` ``EPContext``, which has these fields too."""
    node = b"\x22\x09EPContext\x3a\x0dcom.microsoft" + more
    return bytes([0x3A, len(node) + 2, 0x0A, len(node)]) + node


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no graph"),
        (b"\x08\x08", "holds no graph"),
        (b"not a model", "not an ONNX model"),
        (b"\x3a\x7f", "ends past its message"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends past its message"),
        (b"\x08" + b"\xff" * 11, "more than 10 bytes"),
        (b"\x3b\x3c", "wire type 3"),
        (b"\x00\x00", "field number 0"),
        (b"\x3a\x00\x08", "ends inside a number"),
        (b"\x3a\x00\x09\x00", "ends inside a number"),
        (b"\x42\x03\x0a\x01\xff\x3a\x00", "not UTF-8"),
        (_epcontext(b"\x20\x05"), "field 4 of a message Node has wire type 0, not 2"),
        (_epcontext(b"\x39" + b"\x00" * 8), "field 7 of a message Node has wire type 1, not 2"),
        (_epcontext(b"\x25" + b"\x00" * 4), "field 4 of a message Node has wire type 5, not 2"),
        (_epcontext(b"\x22\x03Add"), "field 4 of a message Node comes twice"),
        (_epcontext(b"\x3a\x00"), "field 7 of a message Node comes twice"),
        (b"\x3a\x00\x3a\x00", "field 7 of a message Model comes twice"),
        (b"\x38\x00", "field 7 of a message Model has wire type 0, not 2"),
        (b"\x3a\x00\x42\x02\x12\x00", "field 2 of a message Opset has wire type 2, not 0"),
        (b"\x3a\x00\x42\x04\x10\x01\x10\x02", "field 2 of a message Opset comes twice"),
        (b"\x3a\x06\x2a\x04\x6a\x02\x10\x05", "field 2 of a message Entry has wire type 0, not 2"),
        (b"\x3a\x08\x2a\x06\x6a\x04\x0a\x00\x0a\x00", "field 1 of a message Entry comes twice"),
        (b"\x3a\x08\x0a\x06\x2a\x04\x2a\x00\x2a\x00", "field 5 of a message Attribute comes twice"),
        (b"\x08\x0a\x12\x05ORTM!\x3a\x00", "in the format of ONNX Runtime"),
    ],
)
def test_damaged(data: bytes, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        scan_bytes(data)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(BundleError, match="the file is empty"):
        scan_onnx(tmp_path / "model.onnx")


def _nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, ``depth`` times."""

    def wrap(tag: int, data: bytes) -> bytes:
        size, head = len(data), bytearray([tag])
        while size >= 0x80:
            head.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes([*head, size]) + data

    data = b""
    for _ in range(depth):
        data = wrap(0x0A, wrap(0x2A, wrap(0x32, data)))
    return wrap(0x3A, data)


def test_nesting() -> None:
    scan_bytes(_nested(30))
    with pytest.raises(BundleError, match="nested more than"):
        scan_bytes(_nested(3000))


def test_many_fields_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_scan, "_FIELD_LIMIT", 1000)
    scan_bytes(b"\x3a\x00" + b"\x42\x00" * 999)
    with pytest.raises(BundleError, match="more than 1000 fields"):
        scan_bytes(b"\x3a\x00" + b"\x42\x00" * 1000)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    try:
        scan_bytes(data)
    except BundleError as e:
        assert "\n" not in str(e)


MODEL = tiny_model().SerializeToString()


@settings(max_examples=500, deadline=None)
@given(st.integers(0, len(MODEL) - 1), st.integers(1, 255), st.integers(0, len(MODEL)))
def test_flipped_and_cut_models(at: int, flip: int, end: int) -> None:
    data = bytearray(MODEL)
    data[at] ^= flip
    try:
        scan_bytes(bytes(data[:end]))
    except BundleError as e:
        assert "\n" not in str(e)
