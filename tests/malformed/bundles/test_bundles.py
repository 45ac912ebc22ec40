"""Bundles that are damaged, or that lie, through the verbs that open one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from eptx.files.strict_json import dump_json
from tests.eptx.test_bundle import DAMAGE
from tests.malformed.breaks import Change
from tests.malformed.scene import Cli, Scene, check_refusal

VERBS = {"inspect": (), "run": ("good film", "--task", "sst2"), "validate": ("--provider", "cpu"), "bench": ()}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged(scene: Scene, cli: Cli, name: str) -> None:
    """What `read_bundle` refuses, the verbs refuse; what is no bundle at all may be taken for an adapter."""
    damage, said = DAMAGE[name]
    damage(scene.tiny)
    for verb, more in VERBS.items():
        if verb == "inspect" and name in ("no folder", "a file", "no manifest"):
            continue
        result = cli(verb, "-q", scene.tiny, *more)
        shown = re.search(said, result.err)
        check_refusal(result, 3, shown[0] if shown else said)


def manifest(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Changes what the tiny bundle says about itself."""

    def apply(scene: Scene) -> None:
        path = scene.tiny / "eptx.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_bytes(dump_json(value))

    return apply


def stored(**fields: Any) -> Change:
    """Says that the tiny bundle is quantized, so."""
    nothing: dict[str, Any] = {"products": {}, "embeddings": {}, "budget": {}, "metrics": {}, "data": [], "rows": None}
    return manifest(lambda m: m.update(precision="int8", quantization=nothing | fields))


def route(given: Any, constant: Any = ()) -> Change:
    """Says that the tiny bundle has a frozen route."""
    return manifest(lambda m: m.update(route={"tasks": {"sst2": given}, "constant": list(constant)}))


def relist(folder: Path) -> None:
    """Makes ``eptx.json`` agree with the files, as someone who means harm would."""
    value = json.loads((folder / "eptx.json").read_text())
    for name in value["files"]:
        data = (folder / name).read_bytes()
        value["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "eptx.json").write_bytes(dump_json(value))


def file(name: str, content: str | bytes | Callable[[bytes], bytes]) -> Change:
    """Another content of a listed file, or one that is made of it, listed so."""

    def apply(scene: Scene) -> None:
        path = scene.tiny / name
        data = content(path.read_bytes()) if callable(content) else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        relist(scene.tiny)

    return apply


def model(change: Callable[[onnx.ModelProto], Any]) -> Change:
    """Another model, listed so."""

    def apply(scene: Scene) -> None:
        loaded = onnx.load(scene.tiny / "model.onnx", load_external_data=False)
        change(loaded)
        (scene.tiny / "model.onnx").write_bytes(loaded.SerializeToString())
        relist(scene.tiny)

    return apply


def _swap(entries: list[Any]) -> None:
    entries[0]["name"], entries[1]["name"] = entries[1]["name"], entries[0]["name"]


def _task(index: int, **changes: Any) -> Change:
    return manifest(lambda m: m["tasks"][index].update(changes))


def _unprintable(data: bytes) -> bytes:
    return data.replace(b"task_id_used", b"task_id\xff\xfesed")


def _recursive(m: onnx.ModelProto) -> None:
    function = m.functions[0]
    function.node.append(helper.make_node(function.name, list(function.input), ["again"], domain=function.domain))


def _gigabytes(m: onnx.ModelProto) -> None:
    """A node of a few bytes whose constant result is 256 GB."""
    shape = onnx.numpy_helper.from_array(np.array([1 << 36], np.int64), "huge_shape")
    m.graph.initializer.append(shape)
    m.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge_shape"], ["huge"]))
    m.graph.node.insert(1, helper.make_node("ReduceMax", ["huge"], ["small"], keepdims=1))
    head = next(n for n in m.graph.node if "logits" in n.output)
    head.output[0] = "honest"
    m.graph.node.append(helper.make_node("Add", ["honest", "small"], ["logits"]))


#: name -> how to break the tiny bundle, exit code, what `eptx run` says.
LIES: dict[str, tuple[Change, int, str]] = {
    "an embedding that no output is": (
        manifest(lambda m: m.update(embedding={"pooling": ["mean"], "layers": [], "normalize": True})),
        3,
        "eptx.json: the output embedding is not one vector of float32 for each row",
    ),
    "a pooling of another name": (
        manifest(lambda m: m.update(embedding={"pooling": ["sum"], "layers": [], "normalize": True})),
        3,
        "eptx.json: embedding: pooling must be a list of cls, max, mean",
    ),
    "an input of another type": (
        manifest(lambda m: m["inputs"][0].update(dtype="int32")),
        3,
        "the model's input 'input_ids' is not what eptx.json says",
    ),
    "an input of another rank": (
        manifest(lambda m: m["inputs"][1].update(shape=["batch"])),
        3,
        "the model's input 'attention_mask' is not what",
    ),
    "an input of another name": (
        manifest(lambda m: m["inputs"][0].update(name="ids")),
        3,
        "the model's input 'ids' is not what",
    ),
    "an input too few": (manifest(lambda m: m["inputs"].pop(1)), 3, "the model's input 'attention_mask' is not what"),
    "an input too many": (
        manifest(lambda m: m["inputs"].append({"name": "x", "dtype": "int64", "shape": ["batch"]})),
        3,
        "the model's input 'x' is not what",
    ),
    "an output of another type": (
        manifest(lambda m: m["outputs"][1].update(dtype="float16")),
        3,
        "the model's output 'logits' is not what",
    ),
    "a task of more tokens than the model": (
        _task(0, vocab_size=13),
        3,
        "eptx.json: task sst2 has 13 tokens; the model has 12",
    ),
    "a task without tokens": (_task(0, vocab_size=0), 3, "vocab_size must be an integer of at least 1"),
    "a task of fewer tokens than it is sent": (
        _task(0, vocab_size=5),
        3,
        "input input_ids[0, 1] is 5; task sst2 has token ids 0 to 4",
    ),
    "an output too many": (
        manifest(lambda m: m["outputs"].append({"name": "x", "dtype": "int64", "shape": ["batch"]})),
        3,
        "the model's output 'x' is not what",
    ),
    "logits wider than the model's": (
        manifest(lambda m: (m["outputs"][1].update(shape=["batch", 4]), m["tasks"][2].update(labels=4))),
        3,
        "the model's output 'logits' is not what eptx.json says",
    ),
    "labels past logits of any width": (
        manifest(lambda m: (m["outputs"][1].update(shape=["batch", "n"]), m["tasks"][2].update(labels=4))),
        3,
        "the model's output logits has shape [1, 3], which is not what eptx.json says",
    ),
    "an output whose name is not UTF-8": (
        file("model.onnx", _unprintable),
        3,
        "the model has an output whose name or dimension's name is not UTF-8",
    ),
    "outputs exchanged": (manifest(lambda m: _swap(m["outputs"])), 3, "is not what eptx.json says"),
    "a task that the model has not": (_task(0, id=70), 3, "ONNX Runtime fails on this request"),
    "a task's name with escapes": (_task(1, name="\x1b[2Jmnli"), 3, "cannot be printed"),
    "a label's name with a line break": (_task(0, label_names=["a\nb", "c"]), 3, "cannot be printed"),
    "words that the model has not": (manifest(lambda m: m.update(vocab_size=6)), 3, "token ids are 0 to 5"),
    "a key twice": (
        lambda s: (s.tiny / "eptx.json").write_text(
            (s.tiny / "eptx.json").read_text().replace('"precision"', '"mode": "static",\n "precision"', 1)
        ),
        3,
        "the key 'mode' appears twice",
    ),
    "NaN": (
        lambda s: (s.tiny / "eptx.json").write_text(
            (s.tiny / "eptx.json").read_text().replace('"vocab_size": 12', '"vocab_size": NaN')
        ),
        3,
        "NaN is not a number",
    ),
    "a route of nonsense": (manifest(lambda m: m.update(route={"tasks": [{}, 5]})), 3, "route"),
    "a route that is no list": (route({"group": 0, "weights": [1]}), 3, "sst2 must be a list"),
    "a route without weights": (route([{"group": 0}]), 3, "weights is missing"),
    "a route of words": (route([{"group": 0, "weights": ["a"]}]), 3, "weights must be a list of numbers"),
    "a constant route of no call": (route([], [{"group": 0, "weights": [1]}]), 3, "call is missing"),
    "a constant route before the first call": (
        route([], [{"call": -1, "group": 0, "weights": [1]}]),
        3,
        "call must be an integer of at least 0",
    ),
    "a route that does not say what is constant": (
        manifest(lambda m: m.update(route={"tasks": {}})),
        3,
        "constant is missing",
    ),
    "a route a thousand deep": (
        manifest(lambda m: m.update(route=json.loads('{"tasks":' * 400 + "{}" + "}" * 400))),
        3,
        "route",
    ),
    "a scheme that is none": (stored(products={"p": "int7"}), 3, "has a scheme that is not one of fp32, fp16, int8"),
    "a table of another kind": (stored(embeddings={"t": 8}), 3, "quantization.embeddings"),
    "a budget below zero": (stored(budget={"sst2": -1}), 3, "has a budget that is not a number of points"),
    "rows that are none": (stored(rows=0), 3, "rows"),
    "a budget of words": (stored(budget={"sst2": "all"}), 3, "has a budget that is not a number of points"),
    "a config of another kind": (file("config.json", "[]"), 3, "config.json: must hold a JSON object"),
    "a config that is deep": (file("config.json", '{"a":' * 50_000), 3, "config.json: nested too deeply"),
    "a tokenizer that is none": (file("tokenizer.json", "{}"), 3, "tokenizer.json: not a tokenizer"),
    "a tokenizer of bytes": (file("tokenizer.json", b"\xff\xfe"), 3, "tokenizer.json: not a tokenizer"),
    "an operator that is not defined": (model(lambda m: m.functions.pop()), 3, "ONNX Runtime does not load it"),
    "an operator of itself": (model(_recursive), 3, "ONNX Runtime does not load it"),
    "operators of version 2": (
        model(lambda m: [setattr(o, "version", 2) for o in m.opset_import if o.domain]),
        3,
        "imports ai.eptx version 2; eptx.json says version 1",
    ),
    "an input that is no tensor": (
        model(lambda m: m.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(m.graph.input[0].type))),
        3,
        "model.onnx",
    ),
    "a graph that does not fit together": (
        model(lambda m: m.graph.node[0].input.__setitem__(0, "types_")),
        3,
        "ONNX Runtime does not load it",
    ),
    "256 GB from a few bytes": (model(_gigabytes), 6, "not enough memory"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies(scene: Scene, cli: Cli, name: str) -> None:
    change, code, said = LIES[name]
    change(scene)
    cli.refuses(code, said, "run", scene.tiny, "good film", "--task", "sst2")


@pytest.mark.parametrize(
    "name", ["a route of nonsense", "a route a thousand deep", "a task's name with escapes", "NaN"]
)
def test_lies_to_inspect(scene: Scene, cli: Cli, name: str) -> None:
    change, code, said = LIES[name]
    change(scene)
    cli.refuses(code, said, "inspect", scene.tiny)
