"""Encoder-decoders: the encoder once, then an answer token by token, both held against the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from eptx.exporter import Route
from eptx.exporter.validation.base.lookups import Lookups
from eptx.exporter.validation.inputs.prompts import generated_prompts
from eptx.exporter.validation.inputs.vocabulary import Vocabulary
from eptx.runtime.validation.batch import ANSWER_IDS
from eptx.runtime.validation.distance import LIMIT
from tests.exporter.validation.adapters import (
    Shapes,
    changed,
    linear_shapes,
    swap_tasks,
    write_ept,
    write_lora,
    write_tucka,
)
from tests.exporter.validation.workshop import Workshop, failed_tasks, names, swap_layers_of_the_cache, task, worst
from tests.support.encoder_decoders import TARGETS, KeptGraphs, write_encoder_decoder

ROUTES = {"x": Route(0, (0.6, 0.4)), "y": Route(2, (0.3, 0.7))}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ept", {"mode": "conditioned", "top_k": 2}),
    ("ept", {"mode": "dynamic", "top_k": 2}),
    ("ept", {"mode": "static", "top_k": 2, "task": "task1"}),
    ("ept", {"mode": "conditioned", "top_k": 2, "precision": "fp16"}),
    ("ept of the decoder", {"mode": "dynamic", "top_k": 2}),
    ("tucka", {"mode": "conditioned", "routes": ROUTES}),
    ("tucka", {"mode": "dynamic", "routing": "row"}),
    ("tucka", {"mode": "dynamic", "routing": "batch"}),
    ("lora", {"mode": "conditioned"}),
]


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("t5")
    return Workshop(write_encoder_decoder("t5", folder / "base"), folder)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptGraphs:
    return KeptGraphs(tmp_path_factory.mktemp("kept"))


@pytest.fixture(autouse=True)
def _keep(kept: KeptGraphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eptx.exporter.steps.load.load_encoder_decoder", kept)


def ept(t5: Workshop, shapes: Shapes) -> Path:
    return write_ept(t5.path(), shapes, seed=1, tasks=3, sizes=(2, 3, 3, 5), strength=0.2)


def adapters(t5: Workshop, method: str) -> Path | list[Path]:
    shapes = linear_shapes(t5.base, TARGETS)
    if method == "tucka":
        encoder = {name: shape for name, shape in shapes.items() if name.startswith("encoder")}
        return write_tucka(t5.path(), encoder | shapes, seed=2, tasks=("x", "y"))
    if method == "lora":
        return [write_lora(t5.path(), shapes, seed=seed) for seed in (1, 2)]
    decoder = {name: shape for name, shape in shapes.items() if name.startswith("decoder") and "EncDec" not in name}
    return ept(t5, decoder if method.endswith("decoder") else shapes)


@pytest.mark.parametrize(("method", "options"), CASES)
def test_no_false_alarm(t5: Workshop, method: str, options: dict[str, Any]) -> None:
    report = t5.validate(t5.export(adapters(t5, method), **options))
    assert report.passed, report.reason
    assert worst(report) < LIMIT / 2
    for found in report.providers[0].tasks:
        assert found.greedy is not None
        assert found.greedy.tokens >= 12


def test_what_is_asked(t5: Workshop) -> None:
    """No text is as wide as its answer; an answer begins with the token that it has to."""
    bundle = t5.export(adapters(t5, "ept"), mode="conditioned", top_k=2)
    assert bundle.manifest.generation is not None
    for batch in generated_prompts(bundle.manifest, Vocabulary.of({}, Lookups()), names(bundle)):
        text, answer = batch.arrays["input_ids"], batch.arrays[ANSWER_IDS]
        assert text.shape[1] != answer.shape[1] == batch.length
        assert (answer[:, 0] == bundle.manifest.generation.start).all()


def test_two_tasks_swapped_in_the_decoder(t5: Workshop) -> None:
    original = adapters(t5, "ept")
    assert isinstance(original, Path)
    module = next(
        name for name in linear_shapes(t5.base, TARGETS) if name.startswith("decoder.block.1") and name[-1] == "q"
    )
    report = t5.verdict(original, changed(original, t5.path(), swap_tasks(module, 0, 2)), mode="conditioned", top_k=2)
    assert failed_tasks(report) == {"task0", "task2"}
    assert task(report, "task0").failed_at == module


def test_a_cache_that_is_wrong(t5: Workshop) -> None:
    bundle = t5.export(adapters(t5, "ept"), mode="conditioned", top_k=2)
    report = t5.validate(t5.edited(bundle, swap_layers_of_the_cache))
    assert failed_tasks(report) == {"task0", "task1", "task2", "base"}
    assert worst(report) > 100 * LIMIT


def test_an_encoder_that_is_wrong(t5: Workshop) -> None:
    """Its modules are looked at first."""
    bundle = t5.export(adapters(t5, "ept"), mode="conditioned", top_k=2)

    def scale(graph: ir.Graph) -> None:
        value = next(v for v in graph.initializers.values() if v.name and v.name.endswith("SelfAttention.k.weight"))
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy() * np.float32(1.01), name=value.name)

    report = t5.validate(t5.edited(bundle, scale, "encoder.onnx"))
    assert not report.passed
    assert "fails at first drifting module encoder.block.0.layer.0.SelfAttention.k" in report.reason
