"""A bundle's embedding is held to what the reference computes by itself: wrong pooling, weights and words are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn

from eptx.bundle import Bundle
from eptx.exporter.graph.ends import pooling
from eptx.exporter.steps import load as loading
from eptx.exporter.trained.sentence import load_sentence
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.files.strict_json import dump_json
from eptx.runtime.validation.proof.validate import validate_against_proof
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept
from tests.exporter.validation.workshop import Workshop, names
from tests.exporter.validation.wrong.models import write_base
from tests.support.bundles import copy_bundle
from tests.support.sentences import TEXTS, dense, encoded, normalize, write_sentence

WIDTH = 32


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("sentence")
    plain = write_base("bert", root / "plain")
    behind = [dense(2 * WIDTH, 24, nn.Tanh()), normalize()]
    return Workshop(write_sentence(plain, root / "base", ["mean", "max"], *behind), root, headless=True)


@pytest.fixture(scope="module")
def adapter(workshop: Workshop) -> Path:
    shapes = linear_shapes(workshop.base, ("query", "value", "output.dense"))
    return add_heads(write_ept(workshop.path(), shapes, seed=3, tasks=2), {"a": 2, "b": 3}, WIDTH, pooling="first")


@pytest.fixture(scope="module")
def bundle(workshop: Workshop, adapter: Path) -> Bundle:
    return workshop.export(adapter, mode="conditioned", top_k=2)


@pytest.fixture(scope="module")
def proof(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("proof") / "bundle.proof"
    assert validate_bundle(bundle.path, ValidateOptions(providers=["cpu"], record=path)).passed
    return path


def test_the_reference_is_sentence_transformers(workshop: Workshop) -> None:
    """Its own way to the same numbers, in float64."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(workshop.base).double().eval()
    head = load_sentence(workshop.base)
    assert head is not None
    tokens = AutoTokenizer.from_pretrained(workshop.base)(
        TEXTS, padding=True, truncation=True, max_length=96, return_tensors="pt"
    )
    with torch.no_grad():
        found = head.double()(model(**tokens).last_hidden_state, tokens["attention_mask"])
    assert abs(found.numpy() - encoded(workshop.base, TEXTS)).max() < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
def test_honest_bundles_pass(workshop: Workshop, adapter: Path, mode: str, precision: str) -> None:
    bundle = workshop.export(adapter, mode=mode, top_k=2, precision=precision)
    report = workshop.validate(bundle)
    assert report.passed, report.reason
    assert "base" in names(bundle)
    assert all("embedding" in task.outputs for task in report.providers[0].tasks)


def _over_padding(pooled: Any) -> ir.Value:
    return pooled._node("ReduceMean", pooled._hidden, pooled._axis(1), keepdims=0)  # type: ignore[no-any-return]


def test_a_mean_over_padding(
    workshop: Workshop, adapter: Path, bundle: Bundle, proof: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert validate_against_proof(bundle.path, proof, ["cpu"]).passed
    monkeypatch.setitem(pooling._MODES, "mean", _over_padding)
    wrong = workshop.export(adapter, mode="conditioned", top_k=2)
    report = workshop.validate(wrong)
    assert not report.passed and "embedding" in report.reason
    by_proof = validate_against_proof(wrong.path, proof, ["cpu"])
    assert not by_proof.passed and "embedding" in by_proof.reason


def _weight(graph: ir.Graph) -> None:
    value = graph.initializers["eptx.embedding.0.weight"]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[3, 5] += 0.05
    value.const_value = ir.Tensor(array, name=value.name)


def _no_length(graph: ir.Graph) -> None:
    """The end without its division."""
    output = next(value for value in graph.outputs if value.name == "embedding")
    node = output.producer()
    assert node is not None and node.op_type == "Div"
    node.replace_input_with(1, graph.initializers["pooling.one"])


@pytest.mark.parametrize("change", [_weight, _no_length])
def test_another_layer(workshop: Workshop, bundle: Bundle, change: Callable[[ir.Graph], None]) -> None:
    report = workshop.validate(workshop.edited(bundle, change))
    assert not report.passed and "embedding" in report.reason


@pytest.mark.parametrize(
    "said",
    [
        {"pooling": ["max", "mean"]},
        {"normalize": False},
        {"layers": [{"size": 24, "activation": "relu"}]},
        None,
    ],
)
def test_other_words(workshop: Workshop, bundle: Bundle, said: dict[str, Any] | None) -> None:
    folder = copy_bundle(bundle.path, workshop.path())
    manifest = json.loads((folder / "eptx.json").read_text())
    manifest["embedding"] = None if said is None else manifest["embedding"] | said
    (folder / "eptx.json").write_bytes(dump_json(manifest))
    report = validate_bundle(folder, ValidateOptions(providers=["cpu"]))
    assert not report.passed and "eptx.json: embedding" in [check.name for check in report.checks if check.wrong]


def test_no_embedding(workshop: Workshop, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "read_sentence", lambda *_, **__: None)
    report = workshop.validate(workshop.export(adapter, mode="conditioned", top_k=2))
    wrong = [check.name for check in report.checks if check.wrong]
    assert not report.passed and "output embedding" in wrong and "eptx.json: tasks" in wrong
