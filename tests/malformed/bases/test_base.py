"""Base models, as folders and as .onnx files, that are damaged, hostile, or not what the adapter was trained on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.malformed.breaks import Change, all_of, append, cut, fifo, folder, put, remove, setting, tensors, write
from tests.malformed.scene import Case, Cli, Scene, Table, cases, nothing, refuses_export

Q = "layer.0.query"
CONFIG, WEIGHTS, ONNX = "base/config.json", "base/model.safetensors", "base.onnx"
#: Both are exported without the other: a folder is traced, a file stands alone.
FROM_FOLDER, FROM_FILE = "--mode conditioned", "--mode conditioned"


def graph(change: Callable[[onnx.ModelProto], Any]) -> Change:
    """Changes the ONNX graph."""

    def apply(scene: Scene) -> None:
        model = onnx.load(scene.onnx)
        change(model)
        scene.onnx.write_bytes(model.SerializeToString())

    return apply


def external(location: str, *, make: Callable[[Path], Any] = lambda path: None, **more: str) -> Change:
    """Keeps the query's weight in another file, which `make` writes beside the model."""

    def change(model: onnx.ModelProto) -> None:
        weight = next(t for t in model.graph.initializer if t.name == f"{Q}.weight")
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "0", "length": "480", **more}.items():
            weight.external_data.add(key=key, value=value)

    return all_of(graph(change), lambda scene: make(scene.root / "weights"))


def _bytes(name: bytes) -> Change:
    """A name whose first byte is none of UTF-8's, wherever it is."""

    def apply(scene: Scene) -> None:
        data = scene.onnx.read_bytes()
        assert name in data
        scene.onnx.write_bytes(data.replace(name, b"\xff" + name[1:]))

    return apply


def node(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    """The first node of a type."""
    found: onnx.NodeProto = next(n for n in model.graph.node if n.op_type == op_type)
    return found


def settings(**changed: Any) -> Change:
    """Changes the base's configuration."""

    def apply(scene: Scene) -> None:
        value = json.loads((scene.root / CONFIG).read_text())
        (scene.root / CONFIG).write_text(json.dumps(value | changed))

    return apply


def _another_query(model: onnx.ModelProto) -> None:
    """A second product of the same name with other weights."""
    weight = numpy_helper.from_array(np.ones((10, 12), np.float32), "again.weight")
    model.graph.initializer.append(weight)
    model.graph.node.insert(
        2, helper.make_node("MatMul", ["x", "again.weight"], ["q2"], name=f"/{Q.replace('.', '/')}/MatMul_1")
    )
    model.graph.node.append(helper.make_node("Identity", ["q2"], ["extra"]))
    model.graph.output.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, ["batch", "length", 12]))


def _same_weights(scene: Scene) -> None:
    """Two modules with equal weights, whose names the graph does not tell."""
    weights = {Q: np.ones((12, 10), "f4"), "layer.1.query": np.ones((12, 10), "f4")}
    from safetensors.numpy import load_file, save_file

    loaded = load_file(scene.root / WEIGHTS)
    save_file({**loaded, **{f"{k}.weight": v for k, v in weights.items()}}, scene.root / WEIGHTS)


#: The folder alone, exported through transformers.
FOLDER: Table = {
    "no folder": Case(lambda s: shutil.rmtree(s.base), 3, "no such base model folder"),
    "a file": Case(lambda s: (shutil.rmtree(s.base), s.base.write_text("")), 3, "no such base model folder"),
    "an .onnx file": Case(lambda s: (shutil.rmtree(s.base), s.onnx.rename(s.base)), 3, "no such base model folder"),
    "no config": Case(remove(CONFIG), 3, "config.json: cannot be read"),
    "config not JSON": Case(write(CONFIG, "model_type: bert"), 3, "config.json: not valid JSON"),
    "config a list": Case(write(CONFIG, "[]"), 3, "config.json: must hold a JSON object"),
    "config a FIFO": Case(fifo(CONFIG), 3, "config.json: not a regular file"),
    "config with a key twice": Case(write(CONFIG, '{"model_type": "bert", "model_type": "vit"}'), 3, "appears twice"),
    "config of no model": Case(write(CONFIG, "{}"), 3, "has no model_type"),
    "config of a model of another type": Case(settings(model_type=["bert"]), 3, "has no model_type"),
    "unknown architecture": Case(settings(model_type="mamba9"), 5, "transformers has no architecture 'mamba9'"),
    "encoder-decoder": Case(
        settings(model_type="t5", architectures=["T5Model"]),
        3,
        "they are not those of a T5Model",
    ),
    "unknown class": Case(settings(architectures=["MyBert"]), 5, "transformers has no model 'MyBert'"),
    "class that is none": Case(settings(architectures=["logging"]), 5, "logging"),
    "class that is a tokenizer": Case(settings(architectures=["BertTokenizer"]), 5, "BertTokenizer"),
    "class of another type": Case(settings(architectures=[{}]), 5, "transformers has no model"),
    "sizes of another type": Case(settings(hidden_size="wide"), 3, "config.json"),
    "sizes that do not divide": Case(
        settings(hidden_size=13, num_attention_heads=4), 3, "base: the weights cannot be loaded"
    ),
    "weights of another model": Case(settings(num_attention_heads=7), 3, "base: the weights lack"),
    "no weights": Case(remove(WEIGHTS), 3, "model.safetensors is missing"),
    "weights empty": Case(write(WEIGHTS, b""), 3, "model.safetensors: damaged safetensors file"),
    "weights cut": Case(cut(WEIGHTS, -1), 3, "model.safetensors: damaged safetensors file"),
    "weights too long": Case(
        lambda s: append(s.root / WEIGHTS, b"\0"), 3, "model.safetensors: damaged safetensors file"
    ),
    "weights a FIFO": Case(fifo(WEIGHTS), 3, "model.safetensors: not a regular file"),
    "weights a folder": Case(folder(WEIGHTS), 3, "model.safetensors: not a regular file"),
    "only a pickle": Case(
        lambda s: (s.root / WEIGHTS).rename(s.base / "pytorch_model.bin"), 3, "eptx never reads pickles"
    ),
    "a pickle with what a trainer leaves": Case(
        all_of(remove(WEIGHTS), write("base/pytorch_model.bin", b"x"), write("base/training_args.bin", b"x")),
        3,
        "eptx never reads pickles (pytorch_model.bin)",
    ),
    "only what a trainer leaves": Case(
        all_of(remove(WEIGHTS), write("base/training_args.bin", b"x"), write("base/optimizer.pt", b"x")),
        3,
        "base: model.safetensors is missing\n",
    ),
    "weights in a folder inside": Case(
        lambda s: ((s.base / "step9").mkdir(), (s.root / WEIGHTS).rename(s.base / "step9" / "model.safetensors")),
        3,
        "model.safetensors is missing; step9/model.safetensors is there",
    ),
    "TensorFlow's weights": Case(
        lambda s: (s.root / WEIGHTS).rename(s.base / "tf_model.h5"), 3, "does not read tf_model.h5 as a base's weights"
    ),
    "a GGUF file": Case(lambda s: (s.root / WEIGHTS).rename(s.base / "q4.gguf"), 3, "does not read q4.gguf"),
    "shards without an index": Case(
        lambda s: (s.root / WEIGHTS).rename(s.base / "model-00001-of-00002.safetensors"),
        3,
        "has model-00001-of-00002.safetensors, and no model.safetensors.index.json",
    ),
    "an adapter beside it": Case(
        write("base/adapter_config.json", "{}"), 3, "base: has adapter_config.json beside the base's config.json"
    ),
    "an adapter's folder": Case(
        lambda s: (shutil.rmtree(s.base), shutil.copytree(s.lora, s.base)), 2, "no base is given, and"
    ),
    "quantized": Case(settings(quantization_config={"quant_method": "fp8"}), 5, "the base is quantized by fp8"),
    "quantized by nobody": Case(settings(quantization_config={"bits": 4}), 5, "the base is quantized (quantiz"),
    "weights in 8 bits": Case(
        tensors(WEIGHTS, put(f"{Q}.weight", np.ones((12, 10), np.int8))),
        5,
        "model.safetensors: layer.0.query.weight is stored as I8: the base is quantized",
    ),
    "index not JSON": Case(all_of(remove(WEIGHTS), write(f"{WEIGHTS}.index.json", "{")), 3, "not valid JSON"),
    "index names a file outside": Case(
        all_of(remove(WEIGHTS), write(f"{WEIGHTS}.index.json", '{"weight_map": {"a": "../a.safetensors"}}')),
        3,
        "is not the name of a safetensors file",
    ),
    "index names a missing file": Case(
        all_of(remove(WEIGHTS), write(f"{WEIGHTS}.index.json", '{"weight_map": {"a": "a.safetensors"}}')),
        3,
        "a.safetensors, which model.safetensors.index.json names, is missing",
    ),
}

#: The file alone.
FILE: Table = {
    "missing": Case(remove(ONNX), 3, "base.onnx: cannot be read"),
    "a folder": Case(folder(ONNX), 3, "base.onnx: not a regular file"),
    "a FIFO": Case(fifo(ONNX), 3, "base.onnx: not a regular file"),
    "empty": Case(write(ONNX, b""), 3, "base.onnx: not an ONNX model: the file is empty"),
    "text": Case(write(ONNX, "hello, world"), 3, "base.onnx: not an ONNX model"),
    "zeros": Case(write(ONNX, b"\0" * 999), 3, "base.onnx: not an ONNX model"),
    "cut": Case(cut(ONNX, -1), 3, "base.onnx: not an ONNX model"),
    "cut in the middle": Case(cut(ONNX, 300), 3, "base.onnx: not an ONNX model"),
    "too long": Case(lambda s: append(s.onnx, b"\xff" * 9), 3, "base.onnx: not an ONNX model"),
    "no nodes": Case(graph(lambda m: m.graph.ClearField("node")), 3, "base.onnx"),
    "no inputs": Case(
        graph(
            lambda m: (
                m.graph.ClearField("input"),
                m.graph.initializer.extend(
                    numpy_helper.from_array(np.ones((2, 3), np.int64), name) for name in ("input_ids", "attention_mask")
                ),
            )
        ),
        3,
        "base.onnx: the graph has no inputs",
    ),
    "no outputs": Case(graph(lambda m: m.graph.ClearField("output")), 3, "base.onnx: the graph has no outputs"),
    "old opset": Case(
        graph(lambda m: setattr(m.opset_import[0], "version", 9)), 3, "has opset 9; export the base again"
    ),
    "opset of the future": Case(
        graph(lambda m: setattr(m.opset_import[0], "version", 99)), 3, "ONNX Runtime cannot load it"
    ),
    "no opset": Case(graph(lambda m: m.ClearField("opset_import")), 3, "has no opset"),
    "unknown domain": Case(
        graph(lambda m: (setattr(node(m, "Relu"), "domain", "evil"), m.opset_import.add(domain="evil", version=1))),
        3,
        "uses Relu of domain 'evil'",
    ),
    "unknown operator": Case(
        graph(lambda m: setattr(node(m, "Relu"), "op_type", "Rule")), 3, "ONNX Runtime cannot load it"
    ),
    "an input that nobody makes": Case(
        graph(lambda m: m.graph.node[1].input.__setitem__(1, "w")), 3, "ONNX Runtime cannot load it"
    ),
    "a node's name that is not text": Case(_bytes(b"/layer.0.query/MatMul"), 3, "the name of a node is not UTF-8"),
    "a value's name that is not text": Case(_bytes(b"words"), 3, "base.onnx"),
    "an operator's name that is not text": Case(_bytes(b"Relu"), 3, "a name is not UTF-8"),
    "adapted already": Case(lambda s: shutil.copy(s.bundle / "model.onnx", s.onnx), 3, "is already adapted by eptx"),
    "a cycle": Case(graph(lambda m: m.graph.node[0].input.__setitem__(1, "last_hidden_state")), 3, "base.onnx"),
    "shape that lies": Case(graph(lambda m: m.graph.initializer[2].dims.__setitem__(0, 11)), 3, "base.onnx"),
    "shape that overflows": Case(graph(lambda m: m.graph.initializer[2].dims.__setitem__(0, 2**62)), 3, "base.onnx"),
    "shape that is negative": Case(graph(lambda m: m.graph.initializer[2].dims.__setitem__(0, -10)), 3, "base.onnx"),
    "weight without data": Case(graph(lambda m: m.graph.initializer[2].ClearField("raw_data")), 3, "base.onnx"),
    "external data outside": Case(external("../weights"), 3, "external data '../weights' is not inside its folder"),
    "external data absolute": Case(external("/etc/passwd"), 3, "external data '/etc/passwd' is not inside its folder"),
    "external data linked": Case(
        external("weights", make=lambda p: p.symlink_to("/etc/passwd")), 3, "external data 'weights' is a symbolic link"
    ),
    "external data a FIFO": Case(
        external("weights", make=os.mkfifo), 3, "external data 'weights' is not a regular file"
    ),
    "external data a folder": Case(
        external("weights", make=Path.mkdir), 3, "external data 'weights' is not a regular file"
    ),
    "external data missing": Case(external("weights"), 3, "external data 'weights' is missing"),
    "external data cut": Case(
        external("weights", make=lambda p: p.write_bytes(b"x" * 479)),
        3,
        "weights: truncated: base.onnx reads to byte 480",
    ),
    "external data without length, cut": Case(
        external("weights", make=lambda p: p.write_bytes(b"x" * 4), length="4"), 3, "base.onnx"
    ),
    "external data in memory": Case(external("*/_ORT_MEM_ADDR_/*"), 3, "is not inside its folder"),
    "external data without a name": Case(external(""), 3, "is not inside its folder"),
    "external data from byte x": Case(external("weights", offset="x"), 3, "offset is not one number"),
    "module missing": Case(
        graph(
            lambda m: (
                setattr(m.graph.node[1], "name", "nameless")
                or m.graph.initializer[2].__setattr__("name", "w")
                or m.graph.node[1].input.__setitem__(1, "w")
            )
        ),
        3,
        "1 of 2 adapted modules are not found in the base graph by name",
    ),
    "module twice": Case(
        graph(_another_query),
        3,
        f"found more than once in the base graph, with different weights; name each with --module-map: {Q}",
    ),
    "module scaled": Case(
        graph(
            lambda m: (
                setattr(m.graph.node[1], "op_type", "Gemm"),
                m.graph.node[1].attribute.add(name="alpha", type=1, f=0.5),
                m.graph.node[1],
            )
        ),
        3,
        "base.onnx",
    ),
    "input named task_id": Case(
        graph(
            lambda m: (setattr(m.graph.input[1], "name", "task_id"), node(m, "Cast").input.__setitem__(0, "task_id"))
        ),
        5,
        "has an input or output 'task_id' of its own",
    ),
}

#: Both, which contradict each other.
BOTH: Table = {
    "other weights": Case(
        tensors(WEIGHTS, put(f"{Q}.weight", setting((0, 0), 9.0))),
        3,
        f"have other weights in the base graph than in the base folder; give the graph's own folder: {Q}",
    ),
    "other widths": Case(
        tensors(WEIGHTS, put(f"{Q}.weight", lambda w: w[:8])), 3, f"{Q} is [8, 10] in the base, [12, 10] in the adapter"
    ),
    "weights cut": Case(cut(WEIGHTS, -1), 3, "model.safetensors: damaged"),
    "config not JSON": Case(write(CONFIG, "{"), 3, "config.json: not valid JSON"),
    "module map missing": Case(
        nothing, 2, "map.json: cannot be read", "--mode conditioned --module-map {root}/map.json"
    ),
    "module map not JSON": Case(
        write("map.json", "x"), 2, "map.json: not valid JSON", "--mode conditioned --module-map {root}/map.json"
    ),
    "module map of numbers": Case(
        write("map.json", f'{{"{Q}": 3}}'),
        2,
        "must map a module's name",
        "--mode conditioned --module-map {root}/map.json",
    ),
    "module map of an unknown module": Case(
        write("map.json", '{"x": "y"}'),
        2,
        "names modules that the adapter does not adapt: x",
        "--mode conditioned --module-map {root}/map.json",
    ),
    "module map to nothing": Case(
        write("map.json", f'{{"{Q}": "y"}}'),
        3,
        "are mapped to no product",
        "--mode conditioned --module-map {root}/map.json",
    ),
    "module map to other weights": Case(
        write("map.json", f'{{"{Q}": "layer.0.dense.weight"}}'),
        3,
        "are mapped to a product whose weights are not",
        "--mode conditioned --module-map {root}/map.json",
    ),
    "module map to columns outside": Case(
        write("map.json", f'{{"{Q}": "{Q}.weight[4:99]"}}'),
        3,
        "are mapped to columns that",
        "--mode conditioned --module-map {root}/map.json",
    ),
    "module map to columns of 5000 digits": Case(
        write("map.json", f'{{"{Q}": "{Q}.weight[4:{"9" * 5000}]"}}'),
        3,
        "are mapped to no product",
        "--mode conditioned --module-map {root}/map.json",
    ),
}


@cases(lora=FILE)
def test_file(scene: Scene, cli: Cli, adapter: str, case: Case) -> None:
    refuses_export(scene, cli, adapter, case, base=False)


@cases(lora=BOTH)
def test_file_and_folder(scene: Scene, cli: Cli, adapter: str, case: Case) -> None:
    refuses_export(scene, cli, adapter, case)


@cases(lora=FOLDER)
def test_folder(scene: Scene, cli: Cli, adapter: str, case: Case) -> None:
    case.change(scene)
    before = sorted(scene.root.rglob("*"))
    cli.refuses(
        case.code, case.said, "export", "-q", scene.base, scene.lora, "-o", scene.out / "b", "--mode", "conditioned"
    )
    assert sorted(scene.root.rglob("*")) == before
