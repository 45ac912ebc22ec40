"""Triton model repositories: what Triton's own schema, ONNX Runtime and a YAML reader make of them."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from eptx import Session, read_bundle
from eptx.bundle import Bundle, Component, Generation, OnnxRuntime, Quantization, TensorSpec, Text
from eptx.cli import main
from eptx.errors import BundleError, NotSupportedError, UsageError
from eptx.runtime.packaging import package_triton
from eptx.runtime.packaging._config import model_config
from eptx.runtime.packaging._text_format import Name, text_format
from tests.support.decoders import write_decoder_bundle
from tests.support.tiny_bundle import LABELS, TASKS, expected_logits, tiny_manifest, write_tiny

text_parser = pytest.importorskip("google.protobuf.text_format", reason="protobuf is not installed")

_TYPES = {"tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}
_NUMPY = {"TYPE_INT64": np.int64, "TYPE_FP32": np.float32}


@cache
def _schema() -> Any:
    """Triton's schema, from its client; the module alone, since the client's package also wants gRPC."""
    spec = importlib.util.find_spec("tritonclient")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(spec.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    found = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _parse(text: str) -> Any:
    return text_parser.Parse(text, _schema().ModelConfig())


def _config(model: Path) -> Any:
    return _parse((model / "config.pbtxt").read_text(encoding="utf-8"))


def _type(tensor: Any) -> str:
    return str(_schema().DataType.Name(tensor.data_type))


def _shape(tensor: Any) -> list[int]:
    """What the model is given: the batch, and then ``dims`` or what they are reshaped to."""
    return [-1, *(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny(tmp_path_factory.mktemp("bundles") / "tiny", tokenizer=True)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_decoder_bundle(tmp_path_factory.mktemp("bundles") / "decoder")


def test_the_configuration_says_what_the_model_is(bundle: Bundle, tmp_path: Path) -> None:
    model = package_triton(bundle, tmp_path / "repository", max_batch=16, instances=2)
    assert (model.path, model.name, model.notes) == (tmp_path / "repository" / "tiny", "tiny", ())
    config = _config(model.path)
    assert (config.name, config.backend, config.platform) == ("tiny", "onnxruntime", "onnxruntime_onnx")
    assert config.max_batch_size == 16
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8, 16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert config.version_policy.latest.num_versions == 1
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, _schema().ModelInstanceGroup.KIND_CPU)
    tasks = json.loads(config.parameters["eptx.tasks"].string_value)
    assert {name: (t["id"], t["labels"], t["label_names"]) for name, t in tasks.items()} == {
        t.name: (t.id, t.labels, t.label_names and list(t.label_names)) for t in TASKS
    }
    assert config.parameters["eptx.text"].string_value == "null"


def test_clients_are_told_how_to_cut_and_fill(tmp_path: Path) -> None:
    bundle = write_tiny(tmp_path / "tiny", text=Text(max_length=12, truncation_side="left", pad=3))
    text = _config(package_triton(bundle, tmp_path / "repository").path).parameters["eptx.text"].string_value
    assert json.loads(text) == {
        "max_length": 12,
        "truncation_side": "left",
        "padding_side": "right",
        "pad": 3,
        "lower_case": False,
    }


@pytest.mark.parametrize("mode", ["static", "conditioned", "dynamic"])
def test_tensors_are_those_of_the_model(mode: str, tmp_path: Path) -> None:
    model = package_triton(write_tiny(tmp_path / "tiny", mode), tmp_path / "repository")
    config = _config(model.path)
    session = onnxruntime.InferenceSession(model.path / "1" / config.default_model_filename)
    for told, found in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [(t.name, _type(t), _shape(t)) for t in told] == [
            (f.name, _TYPES[f.type], [size if isinstance(size, int) else -1 for size in f.shape]) for f in found
        ]
    for tensor in (*config.input, *config.output):
        assert list(tensor.dims), "Triton takes no tensor without dims"


def test_onnx_runtime_answers_what_triton_would_send(bundle: Bundle, tmp_path: Path) -> None:
    """Each input as a client sends it, in the configuration's dims, reshaped as the configuration says."""
    path = package_triton(bundle, tmp_path).path
    ids = np.array([[2, 5, 7, 3], [2, 6, 8, 3], [2, 5, 8, 3]])
    mask, types = np.ones_like(ids), np.zeros_like(ids)
    task = np.array([[1], [0], [2]])
    sent = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "task_id": task}
    fed = {}
    for tensor in _config(path).input:
        array = sent[tensor.name]
        assert all(want in (-1, got) for want, got in zip(tensor.dims, array.shape[1:], strict=True))
        fed[tensor.name] = array.reshape(len(ids), *_shape(tensor)[1:]) if tensor.HasField("reshape") else array
    (logits,) = onnxruntime.InferenceSession(path / "1" / "model.onnx").run(["logits"], fed)
    np.testing.assert_allclose(logits, expected_logits(ids, mask, types, task[:, 0]), rtol=1e-5)
    ours = Session(path / "1").run(
        {name: sent[name] for name in ("input_ids", "attention_mask")}, ["mnli", "sst2", "stsb"]
    )
    np.testing.assert_allclose(logits, ours["logits"], rtol=1e-6)
    assert logits.shape == (3, LABELS)


def test_the_warm_up_is_a_request_that_the_model_answers(bundle: Bundle, tmp_path: Path) -> None:
    path = package_triton(bundle, tmp_path).path
    (warm,) = _config(path).model_warmup
    assert warm.batch_size == 1
    shapes = {tensor.name: tensor for tensor in _config(path).input}
    fed = {}
    for name, tensor in warm.inputs.items():
        assert tensor.zero_data and all(size > 0 for size in tensor.dims)
        zeros = np.zeros((1, *tensor.dims), _NUMPY[_type(tensor)])
        fed[name] = zeros[:, 0] if shapes[name].HasField("reshape") else zeros
    (logits,) = onnxruntime.InferenceSession(path / "1" / "model.onnx").run(["logits"], fed)
    assert logits.shape == (1, LABELS)


def test_the_version_is_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    path = package_triton(bundle, tmp_path).path
    assert read_bundle(path / "1").manifest == bundle.manifest
    assert sorted(os.listdir(path)) == ["1", "config.pbtxt", "kserve.yaml"]
    assert os.listdir(tmp_path) == ["tiny"]


def test_batches_that_must_not_be_mixed_are_not(tmp_path: Path) -> None:
    changes = {"method": "tucka", "routing": "batch", "task_inference": False}
    model = package_triton(write_tiny(tmp_path / "tiny", "dynamic", **changes), tmp_path / "repository")
    config = _config(model.path)
    assert config.max_batch_size == 32 and not config.HasField("dynamic_batching")
    assert "depends on the rows beside it" in model.notes[0]
    one = package_triton(tmp_path / "tiny", tmp_path / "repository", max_batch=1)
    assert not _config(one.path).HasField("dynamic_batching") and one.notes == ()


def test_int8_is_batched_and_said_to_depend_on_it(bundle: Bundle, tmp_path: Path) -> None:
    for scheme, count in (("int8", 1), ("int8-static", 0)):
        manifest = replace(bundle.manifest, quantization=Quantization({"MatMul": scheme}, {}))
        model = package_triton(Bundle(bundle.path, manifest), tmp_path)
        assert _config(model.path).HasField("dynamic_batching")
        assert [note.startswith("int8 takes the range") for note in model.notes] == [True] * count


def test_a_fixed_batch_is_declared_whole() -> None:
    manifest = tiny_manifest()
    fixed = [replace(spec, shape=(2, *spec.shape[1:])) for spec in manifest.inputs]
    config = _parse(text_format(model_config(replace(manifest, inputs=tuple(fixed)), "m", 8, 1)))
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert [list(tensor.dims) for tensor in config.input] == [[2, -1]] * 3 + [[2]]
    assert not any(tensor.HasField("reshape") for tensor in config.input)
    assert list(config.output[1].dims) == [-1, LABELS]
    assert list(config.model_warmup[0].inputs["input_ids"].dims) == [2, 8]


def test_other_types_and_devices() -> None:
    names = ("float16", "float32", "float64", "int32", "int64", "bool")
    inputs = (TensorSpec("task_id", "int32", ("batch",)), *(TensorSpec(n, n, ("batch", 3)) for n in names))
    manifest = replace(tiny_manifest(), inputs=inputs, provider="cuda", max_length=4)
    config = _parse(text_format(model_config(manifest, "m", 3, 1)))
    wanted = ["INT32", "FP16", "FP32", "FP64", "INT32", "INT64", "BOOL"]
    assert [_type(tensor) for tensor in config.input] == [f"TYPE_{name}" for name in wanted]
    assert config.instance_group[0].kind == _schema().ModelInstanceGroup.KIND_GPU
    assert list(config.dynamic_batching.preferred_batch_size) == [1, 3]


def test_any_text_survives_the_text_format() -> None:
    text = "".join(map(chr, range(256))) + '"\\n\\" 日本語 🎬 \u2028'
    written = text_format({"name": text, "parameters": [{"key": text, "value": {"string_value": text}}]})
    assert written.isascii()
    config = _parse(written)
    assert (config.name, config.parameters[text].string_value) == (text, text)
    assert text_format({"a": True, "b": [1, 2], "c": [], "d": Name("X")}) == "a: true\nb: [ 1, 2 ]\nc: [ ]\nd: X\n"


def test_the_kserve_manifest(bundle: Bundle, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    uri = "s3://models/triton?a=#%20:{}"
    path = package_triton(bundle, tmp_path, name="9_Shop.Desk-", storage_uri=uri).path
    service = yaml.safe_load((path / "kserve.yaml").read_text(encoding="utf-8"))
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert service["metadata"] == {"name": "model-9-shop-desk"}
    assert service["spec"]["predictor"] == {
        "model": {
            "modelFormat": {"name": "onnx"},
            "runtime": "kserve-tritonserver",
            "protocolVersion": "v2",
            "storageUri": uri,
        }
    }
    gpu = Bundle(bundle.path, replace(bundle.manifest, provider="cuda"))
    service = yaml.safe_load((package_triton(gpu, tmp_path).path / "kserve.yaml").read_text(encoding="utf-8"))
    assert service["spec"]["predictor"]["model"]["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert "SET-ME" in service["spec"]["predictor"]["model"]["storageUri"]


@pytest.mark.parametrize(
    ("version", "triton", "tag"),
    [
        ("1.15", "23.05", None),
        ("1.16", "23.09", "23.09-py3"),
        ("1.17", "24.03", "24.03-py3"),
        ("1.25", "26.07", "26.07-py3"),
        ("1.28", "26.08", "26.08-py3"),
        ("1.9", "23.05", None),
    ],
)
def test_the_oldest_triton_is_named(bundle: Bundle, tmp_path: Path, version: str, triton: str, tag: str | None) -> None:
    """KServe runs Triton 23.05 unless `runtimeVersion` says another."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    needing = Bundle(bundle.path, replace(bundle.manifest, onnxruntime=OnnxRuntime(version, 9, 18)))
    model = package_triton(needing, tmp_path)
    assert (model.triton, model.notes) == (triton, ())
    assert f"# Needs Triton {triton} or newer (ONNX Runtime {version}).\n" in (model.path / "config.pbtxt").read_text()
    assert _config(model.path).parameters["eptx.onnxruntime"].string_value == version
    service = yaml.safe_load((model.path / "kserve.yaml").read_text(encoding="utf-8"))
    assert service["spec"]["predictor"]["model"].get("runtimeVersion") == tag


def test_where_no_triton_is_known(bundle: Bundle, tmp_path: Path) -> None:
    for needed, note in (
        (OnnxRuntime("1.29", 9, 18), "No Triton up to 26.08 has ONNX Runtime 1.29"),
        (None, "does not say which ONNX Runtime it needs"),
    ):
        model = package_triton(Bundle(bundle.path, replace(bundle.manifest, onnxruntime=needed)), tmp_path)
        assert model.triton is None and note in model.notes[0]
        assert "runtimeVersion" not in (model.path / "kserve.yaml").read_text()
        assert _config(model.path).parameters["eptx.onnxruntime"].string_value == ("" if needed is None else "1.29")
    assert "Needs" not in (model.path / "config.pbtxt").read_text()


def test_what_generates_is_refused(decoder: Bundle, tmp_path: Path) -> None:
    with pytest.raises(NotSupportedError, match=r"a decoder answers token by token.*use eptx serve"):
        package_triton(decoder, tmp_path / "repository")
    tensor = TensorSpec("input_ids", "int64", ("batch", "length"))
    encoder = Component("encoder.onnx", (tensor,), (tensor,), {})
    both = replace(tiny_manifest(), encoder=encoder, generation=Generation("encoder-decoder", (1,), 0, 0))
    with pytest.raises(NotSupportedError, match="an encoder-decoder answers token by token"):
        package_triton(Bundle(tmp_path, both), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_only_our_own_is_replaced(bundle: Bundle, tmp_path: Path) -> None:
    path = package_triton(bundle, tmp_path, max_batch=4).path
    (path / "1" / "report.html").write_text("a report")
    assert _config(package_triton(bundle, tmp_path, max_batch=8).path).max_batch_size == 8
    assert not (path / "1" / "report.html").exists()
    (path / "2").mkdir()
    (path / "2" / "model.onnx").write_text("somebody's")
    with pytest.raises(UsageError, match=r"holds '2/model.onnx', which eptx did not write"):
        package_triton(bundle, tmp_path)
    assert (path / "2" / "model.onnx").read_text() == "somebody's"
    for name, make in {"file": Path.touch, "folder": Path.mkdir, "link": lambda p: p.symlink_to(path)}.items():
        make(tmp_path / name)
        if name == "folder":
            (tmp_path / name / "config.pbtxt").write_text('name: "folder"')
        with pytest.raises(UsageError, match="was not written by eptx"):
            package_triton(bundle, tmp_path, name=name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "link", "tiny"]


def test_a_damaged_bundle_leaves_no_model(tmp_path: Path) -> None:
    bundle = write_tiny(tmp_path / "tiny")
    weights = bundle.path / "model.onnx.data"
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(BundleError, match=r"model\.onnx\.data: its content does not match"):
        package_triton(bundle, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "ä", "x" * 200, "-o"])
def test_names_are_plain(bundle: Bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no model name"):
        package_triton(bundle, tmp_path, name=name)


def test_other_arguments(bundle: Bundle, tmp_path: Path) -> None:
    for inside in (bundle.path, bundle.path / "deep", bundle.path.parent):
        with pytest.raises(UsageError, match="would lie in the bundle itself"):
            package_triton(bundle, inside)
    for wrong in ({"max_batch": 0}, {"instances": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            package_triton(bundle, tmp_path, **wrong)
    for uri in ("", "bucket/x", "s3://a b", "s3://a\nb", "s3://ä"):
        with pytest.raises(UsageError, match="is no address for KServe"):
            package_triton(bundle, tmp_path, storage_uri=uri)


def test_the_command(
    bundle: Bundle, decoder: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["eptx", "package", "triton", *arguments, "-o", str(tmp_path / "repository")])
        with pytest.raises(SystemExit) as done:
            main()
        return (done.value.code, *capsys.readouterr())

    code, out, err = run(str(bundle.path), "--name", "desk", "--max-batch", "64", "--instances", "3")
    assert (code, err) == (0, "")
    assert out == f"{tmp_path / 'repository' / 'desk'}: model desk for Triton 23.05 or newer; kserve.yaml for KServe\n"
    config = _config(tmp_path / "repository" / "desk")
    assert (config.max_batch_size, config.instance_group[0].count) == (64, 3)
    code, out, _ = run(str(bundle.path), "--json")
    assert code == 0 and (json.loads(out)["name"], json.loads(out)["triton"]) == ("tiny", "23.05")
    code, out, err = run(str(decoder.path))
    assert (code, out, err.count("\n")) == (5, "", 1)
    assert run(str(bundle.path), "--max-batch", "0")[0] == 2
    assert run(str(tmp_path / "absent"))[0] == 3
