"""A proof stands for the trained model: it finds what a validation finds, without PyTorch, or is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from eptx.bundle import Bundle
from eptx.errors import DataError
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.proof import record
from eptx.runtime.validation.proof.content import read_proof
from eptx.runtime.validation.proof.tensors import read_tensors, write_tensors
from eptx.runtime.validation.proof.validate import validate_against_proof
from eptx.runtime.validation.values import errors, sample, vector
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept
from tests.exporter.validation.conftest import Cli
from tests.exporter.validation.contents.files.made import write_wordpieces
from tests.exporter.validation.workshop import Workshop
from tests.support.absent import without
from tests.support.bundles import copy_bundle

#: What `eptx[cpu]` does not bring.
ABSENT = ("torch", "transformers", "peft", "onnx", "onnx_ir", "onnxscript", "safetensors", "optimum", "matplotlib")
#: Bytes that a proof may have: more than fit if nothing but samples counted.
LIMIT = 180_000
#: Runs the command line.
_BARE = """
sys.argv = ["eptx", *{arguments!r}]
from eptx.cli import main
main()
"""


def exported(shop: Workshop, seed: int) -> Bundle:
    """A conditioned bundle of two tasks with heads."""
    adapter = write_ept(shop.path(), linear_shapes(shop.base, ("query", "value", "output.dense")), seed=seed, tasks=2)
    return shop.export(add_heads(adapter, {"sst2": 2, "mnli": 3}, 48), mode="conditioned", top_k=2)


@pytest.fixture(scope="module")
def bundle(headless_bert: Workshop) -> Bundle:
    return exported(headless_bert, seed=3)


@pytest.fixture(scope="module")
def proof(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("proof") / "bundle.proof"
    assert validate_bundle(bundle.path, ValidateOptions(providers=["cpu"], record=path)).passed
    return path


def bare(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line where only numpy, click and ONNX Runtime are installed."""
    code = without(ABSENT, _BARE.format(arguments=[str(argument) for argument in arguments]))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_it_needs_no_pytorch(bundle: Bundle, proof: Path) -> None:
    done = bare("validate", bundle.path, "--against-proof", proof, "--json", "-q")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] and report["proof"].startswith("eptx ")
    assert {each["operators"] for each in report["providers"]} >= {"functions"}
    assert bare("validate", bundle.path, "-q").returncode == 5  # so they are really out of the way


def test_one_weight_is_seen(headless_bert: Workshop, bundle: Bundle, proof: Path) -> None:
    name = "bert.encoder.layer.1.attention.self.value"

    def change(graph: ir.Graph) -> None:
        weight = next(v for k, v in graph.initializers.items() if k.endswith("layer.1.attention.self.value.weight"))
        array = weight.const_value.numpy().copy()  # type: ignore[union-attr]
        array[7, 11] += 0.5
        weight.const_value = ir.tensor(array, name=weight.name)

    wrong = headless_bert.edited(bundle, change)
    done = bare("validate", wrong.path, "--against-proof", proof, "-q")
    assert done.returncode == 4
    assert f"task sst2 fails at first drifting module {name}: " in done.stderr
    assert "it has changed since the proof was recorded" in done.stderr


def test_a_right_copy_passes_and_a_changed_field_does_not(bundle: Bundle, proof: Path, tmp_path: Path) -> None:
    folder = copy_bundle(bundle.path, tmp_path / "copy")
    assert validate_against_proof(folder, proof, ["cpu"]).passed
    manifest = json.loads((folder / "eptx.json").read_text())
    (folder / "eptx.json").write_text(json.dumps(manifest | {"generator": "eptx 9"}))
    assert validate_against_proof(folder, proof, ["cpu"]).passed  # which no validation reads
    manifest["tasks"][0]["label_names"] = ["x", "y"]
    (folder / "eptx.json").write_text(json.dumps(manifest))
    report = validate_against_proof(folder, proof, ["cpu"])
    assert not report.passed
    assert report.reason.startswith("eptx.json tasks: ")


def test_the_proof_of_another_bundle_is_refused(headless_bert: Workshop, proof: Path, cli: Cli) -> None:
    other = exported(headless_bert, seed=4)
    code, out, err = cli("validate", "-q", other.path, "--against-proof", proof)
    assert (code, out) == (3, "")
    assert "is the proof of another bundle" in err and err.count("\n") == 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.999])
def test_a_damaged_proof_is_refused(bundle: Bundle, proof: Path, tmp_path: Path, cli: Cli, share: float) -> None:
    """A flipped bit anywhere, and a file that is cut off there."""
    data = bytearray(proof.read_bytes())
    at = int(share * len(data))
    cut, flipped = tmp_path / "cut", tmp_path / "flipped"
    cut.write_bytes(data[:at])
    data[at] ^= 0x20
    flipped.write_bytes(data)
    for path in (cut, flipped):
        code, _, err = cli("validate", "-q", bundle.path, "--against-proof", path)
        assert code == 3, path
        assert err.startswith("error: ") and err.count("\n") == 1


def _without_batches(content: dict[str, Any]) -> None:
    del content["batches"]


def _with_other_batches(content: dict[str, Any]) -> None:
    content["batches"] = {"0": 1}


def _of_another_version(content: dict[str, Any]) -> None:
    content["version"] = 2


def _with_fewer_rows(content: dict[str, Any]) -> None:
    content["batches"][0]["tasks"].pop()


def _with_wider_values(content: dict[str, Any]) -> None:
    shapes = content["batches"][0]["modules"]
    name = next(iter(shapes))
    shapes[name] = [shapes[name][0], shapes[name][1] + 1, *shapes[name][2:]]


def _without_a_tensor(content: dict[str, Any]) -> None:
    content["batches"][0]["outputs"]["more"] = [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        _without_batches,
        _with_other_batches,
        _of_another_version,
        _with_fewer_rows,
        _with_wider_values,
        _without_a_tensor,
    ],
)
def test_a_proof_that_says_something_else_is_refused(
    proof: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    """Its digest is right."""
    content, arrays = read_tensors(proof)
    change(content)
    write_tensors(tmp_path / "other", content, arrays)
    with pytest.raises(DataError, match="other: "):
        read_proof(tmp_path / "other")


def test_what_it_adds_to_a_graph_names_no_file(bundle: Bundle, proof: Path, tmp_path: Path, cli: Cli) -> None:
    """Not a readable one beside the bundle either, whose numbers a report could then show."""
    content, arrays = read_tensors(proof)
    outside = bundle.path.with_name("outside.bin")
    outside.write_bytes(bytes(4))
    weight = onnx.TensorProto(name="w", dims=[1], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../outside.bin")
    added = onnx.ModelProto.FromString(arrays["model.added"].tobytes())
    added.graph.initializer.append(weight)
    arrays["model.added"] = np.frombuffer(added.SerializeToString(), np.uint8)
    write_tensors(tmp_path / "p", content, arrays)
    code, out, err = cli("validate", "-q", bundle.path, "--against-proof", tmp_path / "p")
    assert (code, out) == (3, "")
    assert "keeps weights in '../outside.bin', which is not a file of the bundle" in err and err.count("\n") == 1


def test_no_proof_of_a_wrong_bundle(headless_bert: Workshop, bundle: Bundle, tmp_path: Path, cli: Cli) -> None:
    def change(graph: ir.Graph) -> None:
        weight = next(v for k, v in graph.initializers.items() if k.endswith("layer.0.attention.self.query.weight"))
        weight.const_value = ir.tensor(weight.const_value.numpy() + 1, name=weight.name)  # type: ignore[union-attr]

    wrong = headless_bert.edited(bundle, change)
    code, _, _err = cli("validate", "-q", wrong.path, "--record", tmp_path / "p")
    assert code == 4 and not (tmp_path / "p").exists()


def test_no_text_of_the_user_and_no_larger_than_it_may_be(headless_bert: Workshop, tmp_path: Path) -> None:
    shutil.copytree(headless_bert.base, tmp_path / "base")
    write_wordpieces(tmp_path / "base", 200)
    for file in (headless_bert.onnx, headless_bert.onnx.with_suffix(".onnx.data")):  # the same weights
        shutil.copy(file, tmp_path)
    bundle = exported(Workshop(tmp_path / "base", tmp_path, headless=True), seed=3)
    rows = [{"text": "a film", "task": task} for task in ("sst2", "mnli")]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "p"
    with mock.patch.object(record, "_LIMIT", LIMIT):
        report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"], record=path, data=data))
    assert LIMIT / 2 < path.stat().st_size < LIMIT
    assert 1 < read_proof(path).expectation.floors.columns < 48  # so modules are sampled
    given = {batch.name for batch in report.batches if batch.seed is None}
    proved = {known.batch.name for known in read_proof(path).expectation.batches}
    assert report.passed and given
    assert proved == {batch.name for batch in report.batches} - given


def test_options_that_do_not_go_with_it(bundle: Bundle, proof: Path, tmp_path: Path, cli: Cli) -> None:
    for flag in (["--base", tmp_path], ["--data", "rows.jsonl"], ["--allow-pickle"], ["--record", tmp_path / "p"]):
        code, _, err = cli("validate", "-q", bundle.path, "--against-proof", proof, *flag)
        assert code == 2
        assert err.startswith(f"error: {flag[0]} does not go with --against-proof")


def test_what_a_sample_holds() -> None:
    """Place by place, feature by feature, as docs/proof.md says it."""
    rng = np.random.default_rng(0)
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    batch = Batch("b", {"input_ids": np.zeros((2, 3), np.int64), "attention_mask": mask}, ("x", "y"))
    exact = rng.normal(size=(2, 3, 7))
    taken = sample("module", exact, batch, 3)
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    wanted = [[exact[row, at, (n * 3 + j) % 7] for j in range(3)] for n, (row, at) in enumerate(places)]
    assert np.array_equal(taken.values, wanted)
    found = exact.copy()
    found[1, 2] += 1.0
    found[0, 2] = np.nan  # padding
    both = np.array([True, True])
    assert errors(found, taken, both, batch) == pytest.approx(np.repeat([0.0, 1.0], [12, 3]))
    assert errors(found, exact, both, batch) == pytest.approx(np.repeat([0.0, 1.0], [28, 7]))
    assert errors(found, taken, np.array([True, False]), batch).shape == (6,)


def test_a_number_that_outweighs_the_rest_is_left_out() -> None:
    """Of a module that is sampled; its error is then not that of the sample."""
    rng = np.random.default_rng(2)
    batch = Batch("b", {"input_ids": np.zeros((2, 4), np.int64)}, ("x", "y"))
    exact = rng.normal(size=(2, 4, 6))
    exact[1, 0, 1] = 1e4  # feature 1 of place 4, whose first of three is 0
    found = exact + np.where(np.abs(exact) > 100, 5.0, 1e-6)
    both = np.array([True, True])
    taken = sample("module", exact, batch, 3)
    assert np.argwhere(np.isnan(taken.values)).tolist() == [[4, 1]]
    assert errors(found, taken, both, batch) == pytest.approx(np.full(23, 1e-6), rel=1e-3)
    assert not np.isnan(sample("output", exact, batch, 3).values).any()
    assert not np.isnan(sample("module", exact, batch, 6).values).any()  # which is whole


def test_the_largest_of_wide_logits() -> None:
    rng = np.random.default_rng(1)
    mask = np.array([[0, 1, 1]])
    batch = Batch("b", {"input_ids": np.zeros((1, 3), np.int64), "attention_mask": mask}, ("x",), prompt=3)
    exact = rng.normal(size=(1, 3, 50))
    taken = sample("output", exact, batch, 4, largest=True)
    for position in (1, 2):
        row = vector(taken, batch, 0, position)
        order = np.argsort(-exact[0, position])[:8]
        assert np.array_equal(row[order], exact[0, position][order])
        assert np.isneginf(np.delete(row, order)).all()
