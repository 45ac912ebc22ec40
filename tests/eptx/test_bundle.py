"""Bundles are read back as they were written, and refused when they are not what they say."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eptx.bundle import BundleWriter, Operators, Task, TensorSpec, read_bundle, write_report
from eptx.errors import BadInputError, BundleError
from eptx.files.strict_json import dump_json
from eptx.manifest.reader import read_manifest
from tests.eptx.wire import varint
from tests.support.tiny_bundle import TASKS, tiny_manifest, tiny_model, write_tiny


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("bundles") / "bundle").path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


@pytest.mark.parametrize("mode", ["static", "conditioned", "dynamic"])
def test_round_trip(tmp_path: Path, mode: str) -> None:
    written = write_tiny(tmp_path / "bundle", mode)
    read = read_bundle(tmp_path / "bundle")
    assert read == written
    assert set(read.manifest.files) == {"config.json", "model.onnx", "model.onnx.data"}
    assert replace(read.manifest, files={}) == tiny_manifest(mode)
    assert read.model == tmp_path / "bundle" / "model.onnx"
    assert read.file("config.json") == tmp_path / "bundle" / "config.json"
    assert read.file("tokenizer.json") is None


def test_same_bytes(tmp_path: Path, original: Path) -> None:
    again = write_tiny(tmp_path / "again").path
    for name in sorted(os.listdir(original)):
        assert (again / name).read_bytes() == (original / name).read_bytes(), name


def test_a_bundle_can_move_and_takes_a_report(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "moved")
    bundle = read_bundle(tmp_path / "moved")
    write_report(bundle, "validation.json", b"{}")
    write_report(bundle, "validation.json", b"[]")
    write_report(bundle, "report.html", b"")
    assert read_bundle(tmp_path / "moved") == bundle
    assert (tmp_path / "moved" / "validation.json").read_bytes() == b"[]"
    write_tiny(tmp_path / "moved")
    assert not (tmp_path / "moved" / "validation.json").exists()


def test_copy(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")
    (tmp_path / "link").symlink_to("source")
    os.mkfifo(tmp_path / "fifo")
    with BundleWriter(tmp_path / "bundle") as writer:
        writer.copy(tmp_path / "link", "a/copy.txt")
        assert not (writer.folder / "a" / "copy.txt").is_symlink()
        with pytest.raises(BadInputError, match="fifo: not a regular file"):
            writer.copy(tmp_path / "fifo")


def _json(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        value = json.loads((folder / "eptx.json").read_text())
        change(value)
        (folder / "eptx.json").write_bytes(dump_json(value))

    return apply


def _set(*path_and_value: Any) -> Callable[[Path], None]:
    *path, last, value = path_and_value

    def change(manifest: Any) -> None:
        for key in path:
            manifest = manifest[key]
        manifest[last] = value

    return _json(change)


def _model(change: Callable[[onnx.ModelProto], Any]) -> Callable[[Path], None]:
    """Changes the model and makes ``eptx.json`` agree with it, as someone who means harm would."""

    def apply(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        change(model)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        _relist(folder)

    return apply


def _relist(folder: Path) -> None:
    import hashlib

    value = json.loads((folder / "eptx.json").read_text())
    data = (folder / "model.onnx").read_bytes()
    value["files"]["model.onnx"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "eptx.json").write_bytes(dump_json(value))


def _locate(location: str, **more: str) -> Callable[[Path], None]:
    def change(model: onnx.ModelProto) -> None:
        weight = next(t for t in model.graph.initializer if t.external_data)
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = location
            elif entry.key in more:
                entry.value = more[entry.key]

    return _model(change)


def _flip(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return apply


def _imports(domain: str, version: int) -> Callable[[Path], None]:
    return _model(lambda m: m.opset_import.add(domain=domain, version=version))


def _node(domain: str, op_type: str) -> Callable[[Path], None]:
    return _model(lambda m: m.graph.node.add(domain=domain, op_type=op_type))


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Other bytes of the model, listed so."""

    def apply(folder: Path) -> None:
        path = folder / "model.onnx"
        path.write_bytes(change(path.read_bytes()))
        _relist(folder)

    return apply


def _append(fields: bytes) -> Callable[[Path], None]:
    """An EPContext with more fields, which hide it from a reader that takes them."""
    node = onnx.NodeProto(op_type="EPContext", domain="com.microsoft").SerializeToString() + fields

    def change(data: bytes) -> bytes:
        model = onnx.ModelProto.FromString(data)
        graph = model.graph.SerializeToString() + b"\x0a" + varint(len(node)) + node
        model.ClearField("graph")
        return model.SerializeToString() + b"\x3a" + varint(len(graph)) + graph

    return _bytes(change)


def _link(folder: Path) -> None:
    (folder / "model.onnx.data").rename(folder.parent / "elsewhere")
    (folder / "model.onnx.data").symlink_to(folder.parent / "elsewhere")


def _fifo(folder: Path) -> None:
    (folder / "model.onnx.data").unlink()
    os.mkfifo(folder / "model.onnx.data")


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "no such bundle"),
    "a file": (lambda p: (shutil.rmtree(p), p.write_text("")), "not a folder"),
    "no manifest": (lambda p: (p / "eptx.json").unlink(), "it has no eptx.json"),
    "empty manifest": (lambda p: (p / "eptx.json").write_text(""), "eptx.json: not valid JSON"),
    "manifest of another kind": (lambda p: (p / "eptx.json").write_text("[]"), "must be a JSON object"),
    "huge manifest": (lambda p: (p / "eptx.json").write_text(" " * (17 << 20)), "larger than"),
    "deep manifest": (lambda p: (p / "eptx.json").write_text('{"a":' * 99999), "nested too deeply"),
    "manifest cut": (lambda p: os.truncate(p / "eptx.json", 300), "not valid JSON"),
    "manifest linked": (
        lambda p: ((p / "eptx.json").rename(p.parent / "m"), (p / "eptx.json").symlink_to(p.parent / "m")),
        "'eptx.json' is not a plain file",
    ),
    "schema too new": (_set("schema_version", 2), "schema version 2; this eptx reads 1; upgrade eptx"),
    "schema of another type": (_set("schema_version", "1"), "schema_version must be an integer"),
    "schema true": (_set("schema_version", True), "schema_version must be an integer"),
    "operators too new": (_set("operators", "version", 2), "version 2 of ai.eptx; this eptx knows 1"),
    "operators elsewhere": (_set("operators", "domain", "x"), "names domain 'x'"),
    "operators denied": (_set("operators", None), "imports ai.eptx version 1; eptx.json says not at all"),
    "unknown field": (_set("library", "evil.so"), "unknown field library"),
    "unknown task field": (_set("tasks", 0, "x", 1), r"tasks\[0\]: unknown field x"),
    "field missing": (_json(lambda m: m.pop("mode")), "mode is missing"),
    "unknown mode": (_set("mode", "magic"), "mode must be one of static"),
    "mode of another type": (_set("mode", ["static"]), "mode must be one of static"),
    "no tasks": (_set("tasks", []), "names no task"),
    "task twice": (_set("tasks", 1, "name", "sst2"), "a task appears twice"),
    "task id twice": (_set("tasks", 1, "id", 0), "a task id appears twice"),
    "negative labels": (_set("tasks", 1, "labels", -1), "labels must be an integer of at least 0"),
    "label names": (_set("tasks", 0, "labels", 3), "2 label names for 3 labels"),
    "labels past memory": (_set("tasks", 2, "labels", 2**62), "labels must be an integer below 2147483648"),
    "a label past the logits": (_set("tasks", 2, "labels", 4), "task stsb has 4 labels; a row has 3 logits"),
    "labels of no logits": (_json(lambda m: m["outputs"].pop(1)), "has labels; the model has no output logits"),
    "an id past 32 bits": (_set("tasks", 1, "id", 2**31), "id must be an integer below"),
    "words past 32 bits": (_set("vocab_size", 2**31), "vocab_size must be an integer below"),
    "a length past 32 bits": (_set("max_length", 2**62), "max_length must be an integer below"),
    "an output past 32 bits": (_set("outputs", 1, "shape", ["batch", 2**31]), "not a list of names and sizes"),
    "an output past 64 bits": (_set("outputs", 1, "shape", ["batch", 2**80]), "not a list of names and sizes"),
    "columns past 32 bits": (_set("modules", "pooler", "columns", [0, 2**62]), r"not \[first, last\]"),
    "columns past 64 bits": (_set("modules", "pooler", "columns", [0, 2**80]), r"not \[first, last\]"),
    "a top_k past 32 bits": (_set("sources", "top_k", 2**31), "top_k must be an integer below"),
    "huge id": (_set("tasks", 1, "id", 2**70), "id must be an integer"),
    "input without batch": (_set("inputs", 0, "shape", []), "have no batch"),
    "input of odd shape": (_set("inputs", 0, "shape", ["batch", -1]), "not a list of names and sizes"),
    "task_id of two dimensions": (_set("inputs", 3, "shape", ["batch", 1]), "not one integer for each row"),
    "no task_id": (_json(lambda m: m["inputs"].pop()), "task_id is missing"),
    "columns": (_set("modules", "pooler", "columns", [3, 1]), r"not \[first, last\]"),
    "unused experts": (_set("modules", "pooler", "unused_experts", [1, -1]), "not a list of their numbers"),
    "an expert past any": (_set("modules", "pooler", "unused_experts", [1 << 16]), "not a list of their numbers"),
    "file missing": (lambda p: (p / "model.onnx.data").unlink(), "model.onnx.data: missing"),
    "file cut": (lambda p: os.truncate(p / "model.onnx.data", 8), "has 8 bytes; eptx.json says"),
    "weights flipped": (_flip("model.onnx.data"), "model.onnx.data: its content does not match its SHA-256"),
    "model flipped": (_flip("model.onnx"), "model.onnx: its content does not match its SHA-256"),
    "file unlisted": (lambda p: (p / "evil.so").write_text(""), "'evil.so': not listed"),
    "hidden file": (lambda p: (p / ".x").write_text(""), "'.x': not listed"),
    "file in a folder": (lambda p: ((p / "a").mkdir(), (p / "a" / "b").write_text("")), "'a/b': not listed"),
    "linked file": (_link, "'model.onnx.data' is not a plain file"),
    "fifo": (_fifo, "'model.onnx.data' is not a plain file"),
    "linked folder": (lambda p: (p / "a").symlink_to("/"), "'a' is not a plain file"),
    "name outside": (_set("files", "../x", {"size": 0, "sha256": "0" * 64}), "not a name inside the bundle"),
    "absolute name": (_set("files", "/etc/passwd", {"size": 0, "sha256": "0" * 64}), "not a name inside"),
    "report listed": (_set("files", "report.html", {"size": 0, "sha256": "0" * 64}), "must not be listed"),
    "no model listed": (_json(lambda m: m["files"].pop("model.onnx")), "does not list model.onnx"),
    "odd hash": (_set("files", "model.onnx", "sha256", "0"), "no SHA-256 of 64"),
    "external data outside": (_locate("../elsewhere"), "'../elsewhere', which is not a file of the bundle"),
    "external data absolute": (_locate("/etc/passwd"), "'/etc/passwd', which is not a file of the bundle"),
    "external data unlisted": (_locate("x"), "'x', which is not a file of the bundle"),
    "external data in memory": (_locate("*/_ORT_MEM_ADDR_/*"), "which is not a file of the bundle"),
    "external data in the manifest": (_locate("eptx.json"), "'eptx.json', which is not a file of the bundle"),
    "external data unnamed": (_locate(""), "'', which is not a file of the bundle"),
    "external data past the end": (
        _locate("model.onnx.data", offset="99999"),
        "past the end of model.onnx.data",
    ),
    "operator domain": (_imports("evil", 1), "unknown domain 'evil'"),
    "operator domain unimported": (_node("evil", "Op"), "unknown domain 'evil'"),
    "operator version": (_imports("ai.eptx", 2), "imports ai.eptx version 1, 2; eptx.json says version 1"),
    "operator that opens files": (_node("com.microsoft", "EPContext"), "EPContext, which opens files"),
    "operator hidden by a number": (_append(b"\x20\x05"), "field 4 of a message Node has wire type 0, not 2"),
    "operator hidden by another": (_append(b"\x22\x03Add"), "field 4 of a message Node comes twice"),
    "domain hidden by a number": (_append(b"\x38\x00"), "field 7 of a message Node has wire type 0, not 2"),
    "a graph twice": (_bytes(lambda data: data + b"\x3a\x00"), "field 7 of a message Model comes twice"),
    "a model of ONNX Runtime's": (_bytes(lambda data: b"\x08\x0a\x12\x04ORTM" + data), "in the format of ONNX Runtime"),
    "not a model": (lambda p: ((p / "model.onnx").write_text("hello"), _relist(p)), "not an ONNX model"),
    "empty model": (lambda p: ((p / "model.onnx").write_text(""), _relist(p)), "the file is empty"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged(folder: Path, damage: str) -> None:
    apply, said = DAMAGE[damage]
    apply(folder)
    with pytest.raises(BundleError, match=said) as e:
        read_bundle(folder)
    assert "\n" not in str(e.value)
    assert e.value.exit_code == 3


def test_without_verification_only_contents_go_unchecked(folder: Path) -> None:
    _flip("model.onnx.data")(folder)
    read_bundle(folder, verify=False)
    (folder / "x").touch()
    with pytest.raises(BundleError, match="'x': not listed"):
        read_bundle(folder, verify=False)


def test_own_functions_may_have_their_own_domain(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import.add(domain="mine", version=1)
        model.functions.add(domain="mine", name="F")

    _model(change)(folder)
    read_bundle(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "static", "operators": None},
        {"mode": "static", "tasks": TASKS[:1], "operators": None},
        {"task_inference": True},
        {"mode": "dynamic", "routing": "row", "task_inference": True},
        {"outputs": (TensorSpec("task_id_used", "float32", ("batch",)),)},
        {"inputs": (TensorSpec("task_id", "int64", ("batch",)),)},
        {"inputs": ()},
        {"tasks": (*TASKS, Task("base", 4))},
    ],
)
def test_fields_must_agree(changes: dict[str, Any]) -> None:
    manifest = json.loads(dump_json(tiny_manifest(**changes).to_json()))
    with pytest.raises(BundleError):
        read_manifest(manifest)


def test_static_with_custom_operators_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no custom operators"):
        write_tiny(tmp_path / "bundle", "static", operators=Operators())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def change_any_field(value: Any, data: st.DataObject) -> None:
    """Puts any JSON in the place of any value of a manifest, however deep."""
    place = value
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            return
        place = inner


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_manifest_with_any_field_changed(original: Path, data: st.DataObject) -> None:
    value = json.loads((original / "eptx.json").read_text())
    change_any_field(value, data)
    try:
        read_manifest(value)
    except BundleError as e:
        assert "\n" not in str(e)


def test_the_scan_reads_real_models(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "bundle") as writer:
        onnx.save(tiny_model(), writer.folder / "model.onnx")
        bundle = writer.finish(tiny_manifest())
    assert list(bundle.manifest.files) == ["model.onnx"]
