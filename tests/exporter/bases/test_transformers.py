"""A transformers folder as a graph: it computes what the model does, and every linear layer is found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter.bases import load_transformers, locate
from eptx.exporter.bases.weights.checkpoint import BaseCheckpoint
from eptx.exporter.bases.weights.model import PREFIXES, base_prefix, load_model, read_config
from eptx.exporter.quiet import quiet
from tests.matrix.made import write_base
from tests.matrix.table import row

SHAPES = [(1, 1), (1, 9), (3, 1), (4, 13), (2, 38)]
LEVELS = [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]


def session(model: ir.Model, path: Path, level: Any = LEVELS[1]) -> ort.InferenceSession:
    ir.save(model, path)
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs(names: set[str], batch: int, length: int) -> dict[str, np.ndarray]:
    """Random inputs; rows after the first are padded at the end."""
    rng = np.random.default_rng(100 * batch + length)
    if "pixel_values" in names:
        return {"pixel_values": rng.normal(size=(batch, 3, 16, 16)).astype(np.float32)}
    ids = rng.integers(3, 90, (batch, length))
    mask = (np.arange(length) < np.maximum(1, length - 2 * np.arange(batch))[:, None]).astype(np.int64)
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": rng.integers(0, 2, (batch, length))}
    return {name: every[name] for name in names}


def compare(run: ort.InferenceSession, reference: Any, shapes: list[tuple[int, int]]) -> None:
    names = {value.name for value in run.get_inputs()}
    for batch, length in shapes:
        feed = inputs(names, batch, length)
        with torch.no_grad():
            wanted = reference(**{name: torch.from_numpy(array) for name, array in feed.items()})
        for output, got in zip(run.get_outputs(), run.run(None, feed), strict=True):
            want = wanted[output.name].numpy()
            kept = feed["attention_mask"][:, :, None] if got.ndim == 3 and "attention_mask" in feed else 1
            # what a padded position holds is nobody's business
            np.testing.assert_allclose(got * kept, want * kept, rtol=0, atol=4e-6 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta", "deberta_shared", "vit", "llama", "albert"])
def test_graph_computes_the_model_and_every_linear_is_found(name: str, tiny: Any, tmp_path: Path) -> None:
    graph = tiny.graph(name)
    for level in LEVELS:
        compare(session(graph.model, tmp_path / "m.onnx", level), tiny.model(name), SHAPES)
    modules = tiny.linears(name)
    sites = locate(graph, modules)
    assert list(sites) == modules
    for module, site in sites.items():
        assert not site.packed
        assert np.array_equal(site.weight_array(), tiny.weight(name, module))


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_headless_graph_is_the_bare_model(name: str, tiny: Any, tmp_path: Path) -> None:
    graph = tiny.graph(name, headless=True)
    outputs = [value.name for value in graph.model.graph.outputs]
    # the classifier's own RoBERTa has no pooler, and its bare model must not invent one
    assert outputs == ["last_hidden_state", "pooler_output"][: 2 if name == "bert" else 1]
    compare(session(graph.model, tmp_path / "m.onnx"), tiny.model(name).base_model, [(3, 7)])
    inside = [module for module in tiny.linears(name) if module.startswith(f"{graph.prefix}.")]
    assert set(locate(graph, inside)) == set(inside)


def test_cuda_fusions_compute_the_same(tiny: Any, tmp_path: Path) -> None:
    graph = tiny.graph("bert", provider="cuda")
    assert "MultiHeadAttention" in {node.op_type for node in graph.model.graph}
    compare(session(graph.model, tmp_path / "m.onnx"), tiny.model("bert"), [(3, 7)])
    assert len(locate(graph, tiny.linears("bert"))) == 14


def test_names_and_dims(tiny: Any) -> None:
    graph = tiny.graph("bert")
    assert [str(value.shape) for value in graph.model.graph.inputs] == ["[batch,length]"] * 3
    assert [value.name for value in graph.model.graph.inputs] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert [(value.name, str(value.shape)) for value in graph.model.graph.outputs] == [("logits", "[batch,2]")]
    assert graph.model_type == "bert"
    assert graph.prefix == "bert"
    assert graph.fingerprint.startswith("sha256:")
    assert {value.name for value in tiny.graph("roberta").model.graph.inputs} == {
        "input_ids",
        "attention_mask",
    }
    assert str(tiny.graph("vit").model.graph.inputs[0].shape) == "[batch,3,16,16]"


def test_known_prefixes_are_those_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(PREFIXES)
    monkeypatch.setattr("eptx.exporter.bases.weights.model.PREFIXES", {})
    assert {name: base_prefix({"model_type": name}) for name in known} == known
    assert base_prefix({"model_type": "orrery"}) == ""


def test_graph_holds_no_trace_of_this_machine(tiny: Any) -> None:
    proto = ir.to_proto(tiny.graph("bert").model)
    assert b"site-packages" not in proto.SerializeToString()
    assert b".py" not in proto.SerializeToString()


def test_same_bytes_whatever_the_hash_seed(tiny: Any) -> None:
    script = (
        "import sys, hashlib, torch, onnx_ir as ir\nfrom pathlib import Path\n"
        "from eptx.exporter.bases import load_transformers\ntorch.set_num_threads(1)\n"
        "model = load_transformers(Path(sys.argv[1])).model\n"
        "print(hashlib.sha256(ir.to_proto(model).SerializeToString(deterministic=True)).hexdigest())"
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    command = [sys.executable, "-c", script, str(tiny.folder("deberta_shared"))]
    done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True)
    here = ir.to_proto(tiny.graph("deberta_shared").model).SerializeToString(deterministic=True)
    assert done.stdout.decode().strip() == hashlib.sha256(here).hexdigest()
    assert done.stderr == b""


def test_nothing_is_printed(tiny: Any, capfd: pytest.CaptureFixture[str]) -> None:
    load_transformers(tiny.folder("vit"))
    assert capfd.readouterr() == ("", "")


def damaged(tiny: Any, tmp_path: Path, how: str) -> Path:
    folder: Path = shutil.copytree(tiny.folder("bert"), tmp_path / "base")
    weights, config = folder / "model.safetensors", folder / "config.json"
    values = json.loads(config.read_text())
    if how == "no folder":
        shutil.rmtree(folder)
    elif how == "no config":
        config.unlink()
    elif how == "config is not json":
        config.write_text("{")
    elif how == "no model_type":
        config.write_text("{}")
    elif how == "unknown architecture":
        config.write_text(json.dumps(values | {"model_type": "orrery"}))
    elif how == "encoder-decoder":
        config.write_text(json.dumps({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}))
    elif how == "config does not fit":
        config.write_text(json.dumps(values | {"hidden_size": 48}))
    elif how == "config is nonsense":
        config.write_text(json.dumps(values | {"hidden_size": "wide"}))
    elif how == "heads do not divide":
        config.write_text(json.dumps(values | {"num_attention_heads": 7}))
    elif how == "no weights":
        weights.unlink()
    elif how == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif how == "fifo":
        weights.unlink()
        os.mkfifo(weights)
    elif how == "index outside":
        weights.rename(tmp_path / "x.safetensors")
        index = {"weight_map": {"bert.pooler.dense.weight": "../x.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif how == "lacks a layer":
        config.write_text(json.dumps(values | {"num_hidden_layers": 3}))
    return folder


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no folder", "no such base model folder"),
        ("no config", "config.json: cannot be read"),
        ("config is not json", "config.json: not valid JSON"),
        ("no model_type", "has no model_type"),
        ("config does not fit", "cannot be loaded"),
        ("config is nonsense", "not a usable configuration"),
        ("heads do not divide", "cannot be loaded"),
        ("no weights", "model.safetensors is missing"),
        ("pickle", "never reads pickles"),
        ("truncated", "damaged safetensors"),
        ("fifo", "not a regular file"),
        ("index outside", "is not the name of a safetensors file"),
        ("lacks a layer", "the weights lack bert.encoder.layer.2"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(how: str, says: str, tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError) as caught:
        load_transformers(damaged(tiny, tmp_path, how))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("unknown architecture", "transformers has no architecture 'orrery'"),
        ("encoder-decoder", "a T5ForConditionalGeneration is an encoder-decoder, which is not one graph"),
    ],
)
def test_other_architectures_are_refused_by_name(how: str, says: str, tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(NotSupportedError, match=says):
        load_transformers(damaged(tiny, tmp_path, how))


def test_modules_whose_output_is_dropped_need_no_place(tmp_path: Path) -> None:
    with quiet():
        write_base(row("SigLIP, image classes"), tmp_path)
    graph = load_transformers(tmp_path)
    assert not graph.holds("vision_model.head.mlp.fc1")  # SigLIP pools, and its classifier reads the states
    assert graph.holds("vision_model.encoder.layers.0.mlp.fc1")


def test_sharded_weights_are_read(tiny: Any, tmp_path: Path) -> None:
    with quiet():
        tiny.model("bert").save_pretrained(tmp_path / "s", max_shard_size="20KB")
        model = load_model(tmp_path / "s", read_config(tmp_path / "s"), type(tiny.model("bert")).__name__)[0]
    assert len(list((tmp_path / "s").glob("*.safetensors"))) > 1
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), tiny.model("bert").parameters(), strict=True))
    checkpoint = BaseCheckpoint(tmp_path / "s")
    for module in tiny.linears("bert"):
        assert np.array_equal(checkpoint.array(f"{module}.weight"), tiny.weight("bert", module))
