"""JavaScript validates by a proof as Python does: Node gives the same report, a browser one that rounds otherwise."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.exporter import Route
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.runtime.validation.proof import record
from eptx.runtime.validation.proof.tensors import read_tensors, write_tensors
from eptx.runtime.validation.proof.validate import validate_against_proof
from eptx.runtime.validation.report.report import Report
from eptx.runtime.validation.report.text import report_text
from tests.examples.web import in_browser, needs_node, node, served, served_plainly, until
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_tucka
from tests.exporter.validation.workshop import Workshop
from tests.support.browser import Browser
from tests.support.bundles import copy_bundle
from tests.support.decoders import write_tokenizer
from tests.support.encoder_decoders import KeptGraphs, write_encoder_decoder

pytestmark = needs_node

GOLDEN = Path(__file__).parents[1] / "golden"
TASKS = {"sst2": 2, "mnli": 3}
ROUTES = {"sst2": Route(0, (0.5, 0.5)), "mnli": Route(1, (0.25, 0.75))}
#: So little that a place has a few of its features, whose number divides no width.
ROOM = 70_000
#: A kind -> base, method and options of the export.
ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "static": ("bert", "ept", {"mode": "static", "task": "mnli", "top_k": 2}),
    "conditioned": ("bert", "ept", {"mode": "conditioned", "top_k": 2}),
    "dynamic": ("bert", "ept", {"mode": "dynamic", "top_k": 2}),
    "int8": ("bert", "ept", {"mode": "conditioned", "precision": "int8", "top_k": 2}),
    "tucka-conditioned": ("bert", "tucka", {"mode": "conditioned", "routes": ROUTES}),
    "tucka-batch": ("bert", "tucka", {"mode": "dynamic"}),
    "tucka-row": ("bert", "tucka", {"mode": "dynamic", "routing": "row"}),
}
GENERATORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "decoder": ("llama", "ept", {"mode": "dynamic", "top_k": 2}),
    "decoder-int4": ("llama", "ept", {"mode": "conditioned", "precision": "int4", "top_k": 2}),
    "decoder-tucka": ("llama", "tucka", {"mode": "dynamic", "routing": "prompt"}),
    "encoder-decoder": ("t5", "ept", {"mode": "dynamic", "top_k": 2}),
    "encoder-decoder-fp16": ("t5", "ept", {"mode": "conditioned", "precision": "fp16", "top_k": 2}),
    "encoder-decoder-int8": ("t5", "tucka", {"mode": "dynamic", "routing": "row", "precision": "int8"}),
}
KINDS = ENCODERS | GENERATORS
TARGETS = {
    "bert": ("query", "value", "output.dense"),
    "llama": ("q_proj", "o_proj", "down_proj"),
    "t5": ("q", "o", "wo"),
}
SIZES = {"bert": (2, 2, 4, 4, 6, 6, 8, 8), "llama": (2, 2, 4, 4, 6, 6, 8, 8), "t5": (2, 3, 3, 5)}
VALUE = "bert.encoder.layer.1.attention.self.value"

#: A kind -> a bundle and its proof.
Proved = Callable[[str], tuple[Bundle, Path]]
Content = dict[str, Any]
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workshop]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shops")
    shutil.copytree(GOLDEN / "ept_llama64" / "base", folder / "llama" / "base")
    write_tokenizer(folder / "llama" / "base", 180)
    bert, t5 = GOLDEN / "ept_bert48" / "base", write_encoder_decoder("t5", folder / "t5" / "base")
    (folder / "bert").mkdir()
    bases = {"bert": bert, "llama": folder / "llama" / "base", "t5": t5}
    return {name: Workshop(base, folder / name, headless=name == "bert") for name, base in bases.items()}


@pytest.fixture(scope="module")
def proved(shops: dict[str, Workshop], tmp_path_factory: pytest.TempPathFactory) -> Proved:
    """Makes each kind of bundle once, with its proof."""
    kept = KeptGraphs(tmp_path_factory.mktemp("kept"))

    @cache
    def make(kind: str) -> tuple[Bundle, Path]:
        base, method, options = KINDS[kind]
        shop = shops[base]
        shapes = linear_shapes(shop.base, TARGETS[base])
        if method == "ept":
            adapter = write_ept(shop.path(), shapes, seed=3, tasks=2, sizes=SIZES[base])
        else:  # the encoder's first query routes
            first = {name: shape for name, shape in shapes.items() if name.startswith("encoder")}
            adapter = write_tucka(shop.path(), first | shapes, seed=3, tasks=list(TASKS))
        if base == "bert":
            add_heads(adapter, TASKS, 48)
        path = shop.path() / "bundle.proof"
        less = mock.patch.object(record, "_room", return_value=ROOM)
        with less, mock.patch("eptx.exporter.steps.load.load_encoder_decoder", kept):
            bundle = shop.export(adapter, **options)
            assert validate_bundle(bundle.path, ValidateOptions(providers=["cpu"], record=path)).passed
        return bundle, path

    return make


def by_functions(bundle: Path, proof: Path) -> Report:
    """Python's report, of what runs in JavaScript too."""
    report = validate_against_proof(bundle, proof, ["cpu"])
    found = [provider for provider in report.providers if provider.operators != "kernels"]
    return replace(report, providers=found, warnings=[])


def check_same(found: Any, wanted: Any, where: str = "") -> None:
    """Compares JSON values; numbers but for the order in which they were summed up.

    onnxruntime-node computes what ONNX Runtime in Python computes.
    """
    if isinstance(wanted, dict):
        assert list(found) == list(wanted) if where.endswith("modules") else found.keys() == wanted.keys(), where
        for name, value in wanted.items():
            check_same(found[name], value, f"{where}/{name}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for index, value in enumerate(wanted):
            check_same(found[index], value, f"{where}/{index}")
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=1e-9), (where, found, wanted)
    else:
        assert found == wanted, where


def check_node(example: Path, bundle: Path, proof: Path) -> dict[str, Any]:
    """Node's report is Python's, in JSON and in text; gives it."""
    report = by_functions(bundle, proof)
    done = node(example, "validate.mjs", bundle, proof, "--json")
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    wanted = report.to_json()
    del found["seconds"], wanted["seconds"]
    check_same(found, wanted)
    assert done.returncode == (0 if report.passed else 4)
    assert done.stderr == ("" if report.passed else f"error: {report.reason}\n")
    text = node(example, "validate.mjs", bundle, proof).stdout.splitlines()
    assert [line for line in text if not line.startswith("took ")] == report_text(
        replace(report, seconds={})  # type: ignore[arg-type]
    ).splitlines()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_report_is_pythons(example: Path, proved: Proved, kind: str) -> None:
    bundle, proof = proved(kind)
    found = check_node(example, bundle.path, proof)
    assert found["passed"]
    assert all(task["worst"]["ratio"] > 0.1 for task in found["providers"][0]["tasks"])


def _added(shift: float, ending: str) -> Callable[[ir.Graph], None]:
    """Adds to one number of an initializer."""

    def change(graph: ir.Graph) -> None:
        weight = next(value for name, value in graph.initializers.items() if name.endswith(ending))
        array = weight.const_value.numpy().copy()  # type: ignore[union-attr]
        array.reshape(-1)[5] += shift
        weight.const_value = ir.tensor(array, name=weight.name)

    return change


MUTANTS = {
    "weight": (_added(0.5, f"{VALUE.removeprefix('bert.')}.weight"), f"fails at first drifting module {VALUE}: "),
    "infinite": (_added(math.inf, f"{VALUE.removeprefix('bert.')}.weight"), "it is infinite or not a number somewhere"),
    "heads": (_added(0.5, "task_head.weight.bank"), "fails at task_heads: "),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_bundle_fails_where_it_is_wrong(
    example: Path, shops: dict[str, Workshop], proved: Proved, mutant: str
) -> None:
    bundle, proof = proved("conditioned")
    change, said = MUTANTS[mutant]
    found = check_node(example, shops["bert"].edited(bundle, change).path, proof)
    assert said in found["reason"] and "task sst2" in found["reason"]


def _batch_with(content: Content, task: str) -> int:
    return next(i for i, batch in enumerate(content["batches"]) if task in batch["tasks"])


def _other_experts(content: Content, arrays: Arrays) -> None:
    arrays[f"experts.{VALUE}.experts"] = arrays[f"experts.{VALUE}.experts"][::-1].copy()


def _tied_experts(content: Content, arrays: Arrays) -> None:
    _other_experts(content, arrays)
    arrays[f"experts.{VALUE}.tied"] = np.array([True, True])


def _more_experts(content: Content, arrays: Arrays) -> None:
    table = arrays[f"experts.{VALUE}.experts"]
    arrays[f"experts.{VALUE}.experts"] = np.concatenate([table, table[:, -1:] + 1], axis=1)


def _unclear(content: Content, arrays: Arrays) -> None:
    """Also where a module is far off."""
    content["unclear"] = dict.fromkeys(TASKS, VALUE)
    for key in _samples(content, "modules", VALUE):
        arrays[key] += 1.0


def _samples(content: Content, kind: str, name: str) -> list[str]:
    return [f"batches.{i}.{kind}.{name}" for i, batch in enumerate(content["batches"]) if name in batch[kind]]


def _wider_logits(content: Content, arrays: Arrays) -> None:
    for key in _samples(content, "outputs", "logits"):
        wide = np.pad(arrays[key], ((0, 0), (0, 1)), constant_values=0.5)
        kept = min(content["columns"], wide.shape[1])
        index = (np.arange(len(wide))[:, None] * kept + np.arange(kept)) % wide.shape[1]
        arrays[key] = np.take_along_axis(wide, index, axis=1)
    for batch in content["batches"]:
        batch["outputs"]["logits"][-1] += 1


def _narrower_logits(content: Content, arrays: Arrays) -> None:
    for key in _samples(content, "outputs", "logits"):
        arrays[key] = arrays[key][:, :-1]
    for batch in content["batches"]:
        batch["outputs"]["logits"][-1] -= 1


def _weak(content: Content, arrays: Arrays) -> None:
    for row in content["effect"]:
        row[4:] = [row[4] * 1e-14, row[5] * 1e-7]


def _other_tasks(content: Content, arrays: Arrays) -> None:
    arrays[f"batches.{_batch_with(content, 'auto')}.task"] ^= 1


def _other_groups(content: Content, arrays: Arrays) -> None:
    for batch in content["batches"]:
        batch["groups"] = [{m: [(g + 1) % 3 for g in groups] for m, groups in call.items()} for call in batch["groups"]]


def _set_aside(content: Content, arrays: Arrays) -> None:
    for i, batch in enumerate(content["batches"]):
        arrays[f"batches.{i}.compared"] = np.arange(len(batch["tasks"])) % 2 == 0


def _unknown_task(content: Content, arrays: Arrays) -> None:
    for facts in content["noise"], content["scale"], content["effect"]:
        facts += [["qnli", *row[1:]] for row in facts if row[0] == "mnli"]
    tasks = content["batches"][0]["tasks"]
    tasks[tasks.index("mnli") if "mnli" in tasks else 0] = "qnli"


def _other_shape(content: Content, arrays: Arrays) -> None:
    """Of a module, as of another model."""
    for index, batch in enumerate(content["batches"]):
        if VALUE in batch["modules"]:
            batch["modules"][VALUE][-1] = 36
            key = f"batches.{index}.modules.{VALUE}"
            arrays[key] = arrays[key][:, : min(content["columns"], 36)]


def _few_numbers(content: Content, arrays: Arrays) -> None:
    for row in content["scale"]:
        row[3] = 60


def _left_out(content: Content, arrays: Arrays) -> None:
    """Of a module, every other number."""
    for key in _samples(content, "modules", VALUE):
        arrays[key][:, ::2] = np.nan


def _diverging(content: Content, arrays: Arrays) -> None:
    content["divergences"][0]["value"] = 1e9


def _dropped(content: Content, arrays: Arrays) -> None:
    facts = {"metric": "accuracy", "labelled": True, "rows": 64, "reference": 0.9, "found": 0.7, "points": 20.0}
    drops = [{**facts, "task": task, "low": low, "high": 22.5} for task, low in (("sst2", 9.5), ("mnli", 10.5))]
    content["drops"] = [{"drop": drops[0], "budget": None}, {"drop": drops[1], "budget": None}]
    content["drops"] += [{"drop": {**drops[0], "labelled": False}, "budget": budget} for budget in (None, 2.5, 25.0)]


def _other_tokens(content: Content, arrays: Arrays) -> None:
    """Another token is the reference's likeliest, and then one that is not among those that the proof has."""
    for index, batch in enumerate(content["batches"]):
        if not batch["greedy"]:
            continue
        largest = arrays[f"batches.{index}.outputs.logits.largest"]
        largest[:, :2] = largest[:, 1::-1]
        largest[-3:, 1] = 179 - largest[-3:, 0]


#: What a proof may say, of which kind, and what is then said; None: it passes.
SAID: dict[str, tuple[str, Callable[[Content, Arrays], None], str | None]] = {
    "experts": ("dynamic", _other_experts, "its router chooses experts "),
    "tied": ("dynamic", _tied_experts, f"rounding decides which experts {VALUE} uses"),
    "count": ("conditioned", _more_experts, "its router chooses experts "),
    "unclear": ("conditioned", _unclear, f"task sst2 cannot be validated: rounding decides which experts {VALUE} uses"),
    "wider": ("conditioned", _wider_logits, "task sst2 fails at task_heads: "),
    "narrower": ("conditioned", _narrower_logits, "fails at task_heads: "),
    "weak": ("static", _weak, "the adapter's own effect is "),
    "tasks": ("dynamic", _other_tasks, "task auto fails at task_id_used: infers task "),
    "groups": ("tucka-row", _other_groups, "its route is group "),
    "aside": ("conditioned", _set_aside, None),
    "unknown": ("conditioned", _unknown_task, "eptx.json names no task 'qnli', which the adapter has"),
    "shape": ("conditioned", _other_shape, "the trained model gives ["),
    "divergence": ("int8", _diverging, "without rows or a budget the limit is "),
    "drops": ("int8", _dropped, "without a budget the interval may begin at 10 (and 1 more tasks)"),
    "greedy": ("decoder", _other_tokens, None),
    "greedy-int8": ("encoder-decoder-int8", _other_tokens, None),
    "few": ("conditioned", _few_numbers, None),
    "left out": ("conditioned", _left_out, None),
}


@contextmanager
def _saying(proof: Path, path: Path) -> Iterator[tuple[Content, Arrays]]:
    """What a proof holds, to be changed: it is written with the right digest then."""
    content, arrays = read_tensors(proof)
    arrays = {name: array.copy() for name, array in arrays.items()}
    yield content, arrays
    write_tensors(path, content, arrays)


@pytest.mark.parametrize("case", SAID)
def test_every_verdict_is_pythons(example: Path, proved: Proved, tmp_path: Path, case: str) -> None:
    kind, change, said = SAID[case]
    bundle, proof = proved(kind)
    with _saying(proof, tmp_path / "other.proof") as held:
        change(*held)
    found = check_node(example, bundle.path, tmp_path / "other.proof")
    assert found["passed"] if said is None else said in found["reason"]


def test_a_changed_field_fails_and_an_unread_one_does_not(example: Path, proved: Proved, tmp_path: Path) -> None:
    bundle, proof = proved("conditioned")
    folder = copy_bundle(bundle.path, tmp_path / "copy")
    manifest = json.loads((folder / "eptx.json").read_text())
    (folder / "eptx.json").write_text(json.dumps(manifest | {"generator": "eptx 9"}))
    assert check_node(example, folder, proof)["passed"]
    manifest["tasks"][0]["label_names"] = ["x", "y"]
    (folder / "eptx.json").write_text(json.dumps(manifest))
    assert check_node(example, folder, proof)["reason"].startswith("eptx.json tasks: ")


def test_a_module_may_be_a_part_of_a_value(example: Path, proved: Proved, tmp_path: Path) -> None:
    """As the products of an attention are in one. Here it is the wrong part."""
    bundle, proof = proved("conditioned")
    folder = copy_bundle(bundle.path, tmp_path / "copy")
    manifest = json.loads((folder / "eptx.json").read_text())
    manifest["modules"][VALUE]["columns"] = [7, 48]
    (folder / "eptx.json").write_text(json.dumps(manifest))
    with _saying(proof, tmp_path / "other") as (content, _):
        for batch in content["batches"]:
            if VALUE in batch["modules"]:
                batch["modules"][VALUE][-1] = 41
    found = check_node(example, folder, tmp_path / "other")
    assert f"fails at first drifting module {VALUE}: " in found["reason"]


def test_a_model_may_hold_its_weights(example: Path, proved: Proved, tmp_path: Path) -> None:
    """Small ones do, beside a file of no bytes."""
    bundle, proof = proved("conditioned")
    folder = copy_bundle(bundle.path, tmp_path / "copy")
    model = ir.load(folder / "model.onnx")
    ir.external_data.load_to_model(model)
    ir.save(model, folder / "model.onnx")
    (folder / "model.onnx.data").write_bytes(b"")
    manifest = json.loads((folder / "eptx.json").read_text())
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "eptx.json").write_text(json.dumps(manifest))
    found = check_node(example, folder, proof)
    assert found["reason"].startswith("model.onnx: is not what was proved")
    assert found["providers"][0]["passed"]


def refused(example: Path, *arguments: object) -> tuple[int, str]:
    """What Node says of what it does not validate: exit code and line."""
    done = node(example, "validate.mjs", *arguments)
    assert done.stdout == "" and done.stderr.count("\n") == 1, done
    return done.returncode, done.stderr.removeprefix("error: ").strip()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.999])
def test_a_damaged_proof_is_refused(example: Path, proved: Proved, tmp_path: Path, share: float) -> None:
    """A flipped bit anywhere, and a file that is cut off there."""
    bundle, proof = proved("conditioned")
    data = bytearray(proof.read_bytes())
    at = int(share * len(data))
    (tmp_path / "cut").write_bytes(data[:at])
    data[at] ^= 0x20
    (tmp_path / "flipped").write_bytes(data)
    for name in ("cut", "flipped"):
        code, line = refused(example, bundle.path, tmp_path / name)
        assert code == 3 and line.startswith(f"{name}: ")
    if share == 0.0:
        assert refused(example, bundle.path, tmp_path / "cut") == (3, "cut: not a proof: it is no safetensors file")


def test_a_proof_that_does_not_hold_what_it_says_is_refused(example: Path, proved: Proved, tmp_path: Path) -> None:
    """Its digest is right."""
    bundle, proof = proved("conditioned")

    def said(change: Callable[[Content, Arrays], object]) -> str:
        with _saying(proof, tmp_path / "other") as held:
            change(*held)
        code, line = refused(example, bundle.path, tmp_path / "other")
        assert code == 3
        return line

    first = next(name for name in read_tensors(proof)[1] if name.startswith("batches.0.modules."))
    assert said(lambda content, _: content.update(version=2)) == (
        "other: is of version 2; this reads version 1: record it anew"
    )
    for change in (
        lambda content, _: content.pop("batches"),
        lambda content, _: content.update(batches={"0": 1}),
        lambda content, _: content["noise"].append(["x", "module", "y", 1, "2", 3.0]),
        lambda _, arrays: arrays.update({first: arrays[first][:-1]}),
        lambda _, arrays: arrays.update({first: arrays[first].astype(np.float32)}),
        lambda _, arrays: arrays.pop("batches.0.task"),
        lambda _, arrays: arrays.update({"batches.0.task": arrays["batches.0.task"][1:]}),
    ):
        assert said(change).startswith("other: damaged: it does not hold what a proof holds (")
    data = proof.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header[first]["data_offsets"][1] += 8
    names = json.dumps(header).encode()
    (tmp_path / "sizes").write_bytes(len(names).to_bytes(8, "little") + names + data[8 + size :])
    assert refused(example, bundle.path, tmp_path / "sizes") == (
        3,
        f"sizes: damaged: no tensor can be read for '{first[:60]}'",
    )


def _weight(location: str) -> onnx.ModelProto:
    tensor = onnx.TensorProto(name="w", dims=[1], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor]))


def _node(domain: str, operator: str) -> onnx.ModelProto:
    return onnx.ModelProto(graph=onnx.GraphProto(node=[onnx.NodeProto(domain=domain, op_type=operator)]))


#: What a graph may not ask for; the last is cut off.
ASKING = {
    "outside": _weight("../outside.bin").SerializeToString(),
    "unlisted": _weight("eptx.json").SerializeToString(),
    "opens": _node("com.microsoft", "EPContext").SerializeToString(),
    "domain": _node("evil", "Read").SerializeToString(),
    "twice": _weight("model.onnx.data").SerializeToString() * 2,
    "cut": _weight("model.onnx.data").SerializeToString()[:-1],
}


@pytest.mark.parametrize("asking", ASKING)
def test_a_graph_that_asks_for_more_is_refused(example: Path, proved: Proved, tmp_path: Path, asking: str) -> None:
    """Whether the proof adds it or the bundle has it, with the line that Python has for it."""
    bundle, proof = proved("conditioned")
    with _saying(proof, tmp_path / "other.proof") as (_, arrays):
        arrays["model.added"] = np.frombuffer(ASKING[asking], np.uint8)
    with pytest.raises(BundleError) as raised:
        validate_against_proof(bundle.path, tmp_path / "other.proof", ["cpu"])
    assert refused(example, bundle.path, tmp_path / "other.proof") == (3, str(raised.value))

    folder = copy_bundle(bundle.path, tmp_path / "copy")
    data = ASKING[asking]
    (folder / "model.onnx").write_bytes(data)
    manifest = json.loads((folder / "eptx.json").read_text())
    manifest["files"]["model.onnx"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "eptx.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError) as raised:
        validate_against_proof(folder, proof, ["cpu"])
    assert refused(example, folder, proof) == (3, str(raised.value))


def test_what_is_not_validated_is_one_line(example: Path, proved: Proved, tmp_path: Path) -> None:
    bundle, proof = proved("conditioned")
    other, _ = proved("static")
    assert refused(example, bundle.path) == (2, "usage: node validate.mjs BUNDLE PROOF [--json]")
    assert refused(example, bundle.path, proof, "--fast")[0] == 2
    assert refused(example, bundle.path, tmp_path / "absent") == (3, "absent: there is no such file")
    assert refused(example, tmp_path, proof) == (3, "eptx.json: there is no such file")
    code, line = refused(example, other.path, proof)
    assert code == 3 and line.startswith("bundle.proof: is the proof of another bundle: its mode differs; ")

    folder = copy_bundle(bundle.path, tmp_path / "copy")

    def said(change: Mapping[str, Any]) -> tuple[int, str]:
        manifest = json.loads((bundle.path / "eptx.json").read_text())
        (folder / "eptx.json").write_text(json.dumps(manifest | change))
        return refused(example, folder, proof)

    files = json.loads((bundle.path / "eptx.json").read_text())["files"]
    weights = files["model.onnx.data"]
    assert said({"provider": "cuda"})[0] == 5
    assert said({"schema_version": 2}) == (3, "eptx.json: does not describe a bundle of version 1")
    assert said({"files": files | {"../x": weights}})[1].startswith('eptx.json: names a file "../x" outside')
    assert said({"files": files | {"x": weights}}) == (3, "x: there is no such file")
    assert said({"files": files | {"model.onnx.data": weights | {"size": 1}}})[1].endswith("; eptx.json says 1")
    assert said({"files": files | {"model.onnx.data": weights | {"sha256": "0"}}})[1].startswith(
        "model.onnx.data: its content does not match its SHA-256"
    )


def _on_the_page(chromium: Browser, address: str, width: int) -> dict[str, Any]:
    """What the page shows when it is done, and its ratios."""
    page = chromium.open(f"{address}proof.html", width=width)
    until(
        page, "!document.getElementById('report').hidden || document.getElementById('loading').className === 'failed'"
    )
    for other, dark in ((390, False), (390, True), (1100, True), (1100, False)):
        chromium.show(page, width=other, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown: dict[str, Any] = page.evaluate("""({
      heading: document.querySelector('#verdict h2').textContent,
      line: document.querySelector('#verdict p').textContent,
      status: document.getElementById('status').textContent,
      rows: [...document.querySelectorAll('#by-task tbody tr')].map((row) => [...row.cells].map((c) => c.textContent)),
      lines: [...document.querySelectorAll('#lines li')].map((line) => line.textContent),
    })""")
    assert page.messages == [] or shown["heading"] == ""
    page.close()
    return shown


@in_browser
def test_the_page_finds_what_python_finds(
    example: Path, shops: dict[str, Workshop], proved: Proved, chromium: Browser, tmp_path: Path
) -> None:
    """WebAssembly rounds otherwise, so ratios are near Python's and verdicts are the same."""
    for kind in ("static", "dynamic", "int8", "tucka-row", "decoder-int4", "encoder-decoder-fp16"):
        bundle, proof = proved(kind)
        done = node(example, "prepare.mjs", bundle.path, proof)
        assert done.returncode == 0, done.stderr
        wanted = {task.task: task.worst[1].ratio for task in by_functions(bundle.path, proof).providers[0].tasks}
        with served(example) as address:
            shown = _on_the_page(chromium, address, width=390)
        assert shown["heading"] == "Passed", shown
        assert [row[0] for row in shown["rows"]] == list(wanted) and all(row[-1] == "pass" for row in shown["rows"])
        for (_, ratio, *_), near in zip(shown["rows"], wanted.values(), strict=True):
            assert near / 2 < float(ratio) < near * 2
    bundle, proof = proved("conditioned")
    wrong = shops["bert"].edited(bundle, MUTANTS["weight"][0])
    assert node(example, "prepare.mjs", wrong.path, proof).returncode == 0
    with served_plainly(example / "public") as address:  # one thread, as it is isolated by no header
        shown = _on_the_page(chromium, address, width=1100)
        assert shown["heading"] == "Failed"
        assert f"task sst2 fails at first drifting module {VALUE}: " in shown["line"]
        assert any(
            line.startswith(f"fail: task mnli fails at first drifting module {VALUE}: ") for line in shown["lines"]
        )
        kept = example / "public" / "bundle.proof"
        kept.write_bytes(kept.read_bytes()[:-1])
        assert _on_the_page(chromium, address, width=390)["status"] == (
            "bundle.proof: damaged: its digest is another; copy it again"
        )
        kept.unlink()
        assert _on_the_page(chromium, address, width=390)["status"] == (
            "bundle.proof: the server answers 404; run prepare.mjs first"
        )
