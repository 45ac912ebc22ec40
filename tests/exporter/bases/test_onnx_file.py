"""Existing .onnx files: whoever made them, and whatever is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from eptx.errors import BaseModelError
from eptx.exporter.bases import load_onnx, locate
from eptx.exporter.quiet import quiet
from tests.exporter.bases.graphs import activation, initializer, model, run

IN, OUT = 40, 30
W = np.random.default_rng(2).normal(size=(OUT, IN)).astype(np.float32)
X = np.random.default_rng(3).normal(size=(2, 3, IN)).astype(np.float32)


def torch_export(tiny: Any, name: str, path: Path, exporter: str) -> Path:
    """Exports with PyTorch itself, as a user would."""
    reference = tiny.model(name)

    class Logits(type(reference)):  # type: ignore[misc]
        def forward(self, *args: Any) -> Any:
            return super().forward(**dict(zip(names, args, strict=True))).logits

    if name == "vit":
        feed: dict[str, torch.Tensor] = {"pixel_values": torch.zeros((2, 3, 16, 16))}
    else:
        feed = {"input_ids": torch.ones((2, 7), dtype=torch.int64)}
        feed["attention_mask"] = torch.ones_like(feed["input_ids"])
    names = list(feed)
    axes = {0: "N", 1: "L"} if name != "vit" else {0: "N"}
    options: dict[str, Any] = {
        "dynamo": False,
        "opset_version": 14,
        "dynamic_axes": dict.fromkeys(names, axes),
    }
    if exporter == "dynamo":
        dims = {axis: torch.export.Dim(label, max=40) for axis, label in axes.items()}
        each = {axis: dims[axis] for axis in axes}
        options = {"dynamo": True, "dynamic_shapes": ((each,) * len(names),)}
    original = reference.__class__
    reference.__class__ = Logits
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                reference, tuple(feed.values()), path, input_names=names, output_names=["logits"], **options
            )
    finally:
        reference.__class__ = original
    return path


def check(tiny: Any, name: str, path: Path, folder: Path | None, atol: float = 0.0) -> dict[str, Any]:
    """Every linear layer is found in the file and holds the model's weights."""
    sites = locate(load_onnx(path, folder=folder), tiny.linears(name))
    for module, site in sites.items():
        np.testing.assert_allclose(site.weight_array(), tiny.weight(name, module), rtol=0, atol=atol)
    return sites


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        ("bert", "torchscript"),
        ("vit", "torchscript"),
        ("bert", "dynamo"),
        ("deberta_shared", "dynamo"),
        ("vit", "dynamo"),
    ],
)
def test_files_of_pytorchs_exporters(name: str, exporter: str, tiny: Any, tmp_path: Path) -> None:
    path = torch_export(tiny, name, tmp_path / "m.onnx", exporter)
    graph = load_onnx(path, folder=tiny.folder(name))
    first = graph.model.graph.inputs[0]
    assert str(first.shape) == ("[batch,3,16,16]" if name == "vit" else "[batch,length]")
    assert [value.name for value in graph.model.graph.outputs] == ["logits"]
    assert graph.model.opset_imports[""] >= 18
    assert b"site-packages" not in ir.to_proto(graph.model).SerializeToString()
    sites = check(tiny, name, path, tiny.folder(name))
    check(tiny, name, path, None)
    if name == "deberta_shared":
        assert [bool(site.also) for module, site in sites.items() if "key_proj" in module] == [True]
    # ONNX Runtime's optimizer drops names: what is left are the weights
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    if name == "deberta_shared":  # folded: adapting the text's key alone would be wrong
        with pytest.raises(BaseModelError, match="relative positions"):
            check(tiny, name, tmp_path / "optimized.onnx", tiny.folder(name))
        return
    check(tiny, name, tmp_path / "optimized.onnx", tiny.folder(name))
    if name == "bert":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        with quiet():
            onnx.save(convert_float_to_float16(onnx.load(path)), tmp_path / "half.onnx")
        check(tiny, name, tmp_path / "half.onnx", tiny.folder(name), atol=3e-4)
        check(tiny, name, tmp_path / "half.onnx", None, atol=3e-4)


def test_modules_by_the_names_of_their_checkpoint(tiny: Any, tmp_path: Path) -> None:
    """transformers 5 renamed ViT's modules; checkpoints, and adapters trained before, keep the old names."""
    old = "vit.encoder.layer.0.attention.attention.key"
    path = torch_export(tiny, "vit", tmp_path / "m.onnx", "torchscript")
    for graph in (tiny.graph("vit"), load_onnx(path, folder=tiny.folder("vit"))):
        for asked in (old, old.removeprefix("vit.")):
            assert np.array_equal(
                locate(graph, [asked])[asked].weight_array(),
                tiny.weight("vit", "vit.layers.0.attention.k_proj"),
            )


def small(path: Path, opset: int = 20, external: bool = False) -> Path:
    x = activation("x", IN)
    graph = model([x], [ir.node("MatMul", [x, initializer("m.weight", W.T)], name="/m/MatMul")], opset)
    ir.save(graph, path, external_data=f"{path.name}.data" if external else None, size_threshold_bytes=0)
    return path


def test_external_data(tmp_path: Path) -> None:
    path = small(tmp_path / "m.onnx", external=True)
    graph = load_onnx(path)
    assert np.array_equal(locate(graph, ["m"])["m"].weight_array(), W)
    assert graph.fingerprint != load_onnx(small(tmp_path / "n.onnx")).fingerprint


def test_a_relative_path_is_checked_like_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path / "m.onnx", external=True)
    monkeypatch.chdir(tmp_path)
    assert locate(load_onnx(Path("m.onnx")), ["m"])
    (tmp_path / "m.onnx.data").rename(tmp_path / "elsewhere")
    (tmp_path / "m.onnx.data").symlink_to("elsewhere")
    with pytest.raises(BaseModelError, match="symbolic link"):
        load_onnx(Path("m.onnx"))


def test_configuration_beside_the_file_is_used(tiny: Any, tmp_path: Path) -> None:
    shutil.copy(tiny.folder("bert") / "config.json", tmp_path)
    graph = load_onnx(small(tmp_path / "m.onnx"))
    assert (graph.model_type, graph.prefix, graph.folder) == ("bert", "bert", tmp_path)
    assert locate(graph, ["bert.m"])
    alone = load_onnx(small(tmp_path / "n.onnx"), folder=None)
    assert alone.config["hidden_size"] == 24


def test_weights_in_constants_functions_and_inputs_are_found(tmp_path: Path) -> None:
    """Older exporters keep weights in Constant nodes, list them as inputs, or make modules functions."""
    weight = helper.make_tensor("v", TensorProto.FLOAT, [IN, OUT], W.T.tobytes(), raw=True)
    listed = helper.make_tensor("listed", TensorProto.FLOAT, [IN, OUT], W.T.tobytes(), raw=True)
    body = [helper.make_node("MatMul", ["a", "b"], ["c"], name="/inner/MatMul")]
    function = helper.make_function("local", "Linear", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="/a/MatMul"),
        helper.make_node("MatMul", ["x", "listed"], ["z"], name="/b/MatMul"),
        helper.make_node("Linear", ["x", "listed"], ["q"], domain="local", name="call"),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yzq"]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, IN])]
    inputs.append(helper.make_tensor_value_info("listed", TensorProto.FLOAT, [IN, OUT]))
    graph = helper.make_graph(nodes, "g", inputs, outputs, [listed])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    onnx.save(
        helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8),
        tmp_path / "m.onnx",
    )
    base = load_onnx(tmp_path / "m.onnx")
    assert [value.name for value in base.model.graph.inputs] == ["x"]
    assert not base.model.functions
    assert set(base.model.opset_imports) == {""}
    for module in ("a", "b"):
        assert np.array_equal(locate(base, [module])[module].weight_array(), W)
    assert len(run(base.model, {"x": X})) == 3


def test_an_older_opset_is_raised(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[-1], keepdims=1),
        helper.make_node("ReduceMax", ["x"], ["all"], keepdims=0),
        helper.make_node("Split", ["x"], ["s", "t"], axis=-1),
        helper.make_node("Sub", ["s", "m"], ["y"]),
        helper.make_node("Add", ["t", "all"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, IN])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yz"],
    )
    old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(old, tmp_path / "m.onnx")
    base = load_onnx(tmp_path / "m.onnx")
    assert base.model.opset_imports[""] == 18
    for got, want in zip(run(base.model, {"x": X}), run(ir.from_proto(old), {"x": X}), strict=True):
        np.testing.assert_array_equal(got, want)


def spoiled(path: Path, how: str) -> Path:
    """A small model with one thing wrong."""
    small(path, external=True)
    data, proto = path.parent / "m.onnx.data", onnx.load(path, load_external_data=False)
    (entries,) = (tensor.external_data for tensor in proto.graph.initializer)
    by_key = {entry.key: entry for entry in entries}
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        small(path).write_bytes(path.read_bytes()[:-900])
    elif how == "text":
        path.write_text("not a model")
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "model is a fifo":
        path.unlink()
        os.mkfifo(path)
    elif how == "data missing":
        data.unlink()
    elif how == "data truncated":
        data.write_bytes(data.read_bytes()[:-1])
    elif how == "data is a link":
        data.rename(path.parent / "real")
        data.symlink_to("real")
    elif how == "data is a fifo":
        data.unlink()
        os.mkfifo(data)
    elif how == "data is a folder":
        data.unlink()
        data.mkdir()
    elif how == "folder of the data is a link":
        (path.parent / "sub").symlink_to(path.parent)
        by_key["location"].value = "sub/m.onnx.data"
        onnx.save(proto, path)
    elif how == "data outside":
        by_key["location"].value = "../m.onnx.data"
        onnx.save(proto, path)
    elif how == "data absolute":
        by_key["location"].value = "/etc/passwd"
        onnx.save(proto, path)
    elif how == "data shorter than its shape":
        by_key["length"].value = "16"
        onnx.save(proto, path)
    elif how == "offset past the end":
        by_key["offset"].value = str(1 << 40)
        onnx.save(proto, path)
    elif how == "huge shape":
        proto.graph.initializer[0].dims[0] = 1 << 40
        onnx.save(proto, path)
    elif how == "inline data too short":
        proto = onnx.load(small(path))
        proto.graph.initializer[0].raw_data = b"\0" * 16
        onnx.save(proto, path)
    elif how == "old opset":
        small(path, opset=12)
    elif how == "unknown domain":
        proto.graph.node[0].domain = "com.example"
        onnx.save(proto, path)
    elif how == "unknown operator":
        proto.graph.node[0].op_type = "MatMull"
        onnx.save(proto, path)
    elif how == "adapted already":
        proto.graph.node[0].domain = "ai.eptx"
        onnx.save(proto, path)
    elif how == "dangling input":
        proto.graph.node[0].input[0] = "nowhere"
        onnx.save(proto, path)
    return path


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "cannot be read"),
        ("empty", "not an ONNX model"),
        ("truncated", "not a"),
        ("text", "not an ONNX model"),
        ("folder", "not a regular file"),
        ("model is a fifo", "not a regular file"),
        ("data missing", "'m.onnx.data' is missing"),
        ("data truncated", "truncated"),
        ("data is a link", "is a symbolic link"),
        ("data is a fifo", "is not a regular file"),
        ("data is a folder", "is not a regular file"),
        ("folder of the data is a link", "is a symbolic link"),
        ("data outside", "is not inside its folder"),
        ("data absolute", "is not inside its folder"),
        ("data shorter than its shape", "m.onnx"),
        ("offset past the end", "truncated"),
        ("huge shape", "m.onnx"),
        ("inline data too short", "m.onnx"),
        ("old opset", "has opset 12; export the base again with opset 13 or later"),
        ("unknown domain", "domain 'com.example'"),
        ("unknown operator", "MatMull"),
        ("adapted already", "already adapted by eptx"),
        ("dangling input", "nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(how: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError) as caught:
        load_onnx(spoiled(tmp_path / "m.onnx", how))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_quantized_graph_is_named_as_the_reason(tmp_path: Path) -> None:
    x = activation("x", IN)
    quantize = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
    zero = initializer("zero", np.array(0, np.int8))
    weight = initializer("w", W.T.astype(np.int8))
    product = ir.node("MatMulInteger", [quantize.outputs[0], weight, quantize.outputs[2], zero])
    product.outputs[0].type = ir.TensorType(ir.DataType.INT32)
    ir.save(model([x], [quantize, product]), tmp_path / "m.onnx")
    with pytest.raises(BaseModelError, match=r"which is quantized \(MatMulInteger\); give it unquantized: m"):
        locate(load_onnx(tmp_path / "m.onnx"), ["m"])


def test_a_folder_without_safetensors_still_gives_its_configuration(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert locate(load_onnx(small(tmp_path / "m.onnx")), ["m"])
