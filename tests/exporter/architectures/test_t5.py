"""Encoder-decoders in every mode, with a growing cache, against PyTorch."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import BaseModelError, NotSupportedError, UsageError
from eptx.exporter import ExportOptions, Route
from eptx.exporter.bases import load_encoder_decoder
from eptx.exporter.trained import Trained
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_lora, write_tucka
from tests.support.encoder_decoders import (
    ENCODER_DECODERS,
    TARGETS,
    VOCABULARY,
    Calls,
    KeptGraphs,
    texts,
    write_encoder_decoder,
)
from tests.support.trained import by_task, trained_model

TOLERANCE = 1e-4
#: How many tokens each call of the decoder gets: pasts of 0, 1, 2, 4, 7, 8, 13, 200 and 201.
CALLS = (1, 1, 2, 3, 1, 5, 187, 1, 2)
Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Architecture -> its transformers folder; each is made once."""
    return functools.cache(lambda name: write_encoder_decoder(name, tmp_path_factory.mktemp("t5") / "base"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptGraphs:
    return KeptGraphs(tmp_path_factory.mktemp("kept"))


@pytest.fixture(autouse=True)
def _keep(kept: KeptGraphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eptx.exporter.steps.load.load_encoder_decoder", kept)


def _ept(base: Path, folder: Path, targets: tuple[str, ...] = TARGETS) -> Path:
    return write_ept(folder, linear_shapes(base, targets), seed=1, tasks=3, sizes=(2, 3, 3, 5), strength=0.2)


def _compare(
    bundle: Bundle, reference: Trained, ids: list[int] | None, *, rows: int = 4, kernels: bool = True, **how: Any
) -> dict[str, np.ndarray]:
    """A whole answer's tokens in several calls against one forward in PyTorch; what the encoder gave."""
    text, mask = texts(rows)
    answer = np.random.default_rng(5).integers(2, VOCABULARY, (rows, sum(CALLS)))
    inputs = {"input_ids": text, "attention_mask": mask, "decoder_input_ids": answer}
    tasks = None if ids is None else np.array(ids[:rows])
    want = by_task(reference, inputs, tasks, **how)
    calls = Calls(bundle, kernels=kernels)
    asked = {} if tasks is None or bundle.manifest.mode == "static" else {"task_id": tasks}
    encoded = calls.encode(text, mask, **asked)
    if "task_id_used" in encoded:
        assert want.task is not None and encoded["task_id_used"].tolist() == want.task.tolist()
    start = 0
    for count in CALLS:
        got = calls.decode(answer[:, start : start + count])["logits"]
        _close(got, want.outputs["logits"][:, start : start + count])
        start += count
    return encoded


def _close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_ept(folders: Folders, tmp_path: Path, name: str) -> None:
    base = folders(name)
    adapter = _ept(base, tmp_path / "ept")
    reference = trained_model(base, [adapter], top_k=2)
    bundle = export_bundle(base, [adapter], tmp_path / "b", ExportOptions(mode="conditioned", top_k=2))
    for rows in (1, 2, 3, 4):
        _compare(bundle, reference, [2, 3, 0, 1], rows=rows)
    _compare(bundle, reference, [2, 3, 0, 1], kernels=False)
    bundle = export_bundle(base, [adapter], tmp_path / "d", ExportOptions(mode="dynamic", top_k=2))
    for kernels in (True, False):
        _compare(bundle, reference, [2, 3, 0, 1], kernels=kernels)
        _compare(bundle, reference, [-1, -1, 3, -1], kernels=kernels)
    bundle = export_bundle(base, [adapter], tmp_path / "s", ExportOptions(mode="static", task="task1", top_k=2))
    _compare(bundle, reference, [1] * 4)


def test_the_parts_of_a_bundle(folders: Folders, tmp_path: Path) -> None:
    base = folders("mt5")
    adapter = _ept(base, tmp_path / "ept")
    bundle = export_bundle(base, [adapter], tmp_path / "b", ExportOptions(mode="conditioned", top_k=2))
    manifest = bundle.manifest
    assert manifest.encoder is not None and manifest.generation is not None
    assert manifest.generation.kind == "encoder-decoder"
    assert (manifest.generation.eos, manifest.generation.pad, manifest.generation.start) == ((1,), 0, 0)
    projections = {f"decoder.block.{i}.layer.1.EncDecAttention.{x}" for i in range(3) for x in "kv"}
    assert set(manifest.encoder.modules) == projections | {
        n for n in linear_shapes(base, TARGETS) if n[:7] == "encoder"
    }
    assert set(manifest.modules) == set(linear_shapes(base, TARGETS)) - set(manifest.encoder.modules)
    cross = {f"cross.{i}.{kind}": ("batch", 4, "length", 12) for i in range(3) for kind in ("key", "value")}
    assert {spec.name: spec.shape for spec in manifest.encoder.outputs} == cross
    past = {spec.name: spec.shape for spec in manifest.inputs if spec.name.startswith("past")}
    assert past == {f"past_key_values.{n[6:]}": ("batch", 4, "past", 12) for n in cross}
    assert [task.name for task in manifest.tasks] == ["task0", "task1", "task2", "base"]


def test_the_real_export_of_a_part_alone(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without kept graphs; an adapter of the encoder alone leaves the decoder as it is, but for a task id to ignore."""
    monkeypatch.setattr("eptx.exporter.steps.load.load_encoder_decoder", load_encoder_decoder)
    base = folders("t5 gated")
    shapes = {n: s for n, s in linear_shapes(base, TARGETS).items() if n.startswith("encoder")}
    adapter = write_ept(tmp_path / "ept", shapes, seed=1, tasks=2, sizes=(2, 3), strength=0.3)
    reference = trained_model(base, [adapter], top_k=1)
    bundle = export_bundle(base, [adapter], tmp_path / "b", ExportOptions(mode="dynamic", top_k=1))
    assert not bundle.manifest.modules
    _compare(bundle, reference, [-1, 1, 2, 0])


def test_tasks_are_inferred_by_a_decoder_alone(folders: Folders, tmp_path: Path) -> None:
    """Where the encoder is not adapted, the first call of the decoder finds the task out, and says so."""
    base = folders("t5")
    shapes = {n: s for n, s in linear_shapes(base, TARGETS).items() if "decoder" in n and n[-2:] not in (".k", ".v")}
    adapter = write_ept(tmp_path / "ept", shapes, seed=1, tasks=3, sizes=(2, 3), strength=0.3)
    reference = trained_model(base, [adapter], top_k=1)
    bundle = export_bundle(base, [adapter], tmp_path / "b", ExportOptions(mode="dynamic", top_k=1))
    text, mask = texts(3)
    calls = Calls(bundle)
    assert "task_id_used" not in calls.encode(text, mask, task_id=np.array([-1, -1, 1]))
    answer = np.random.default_rng(6).integers(2, VOCABULARY, (3, 2))
    inputs = {"input_ids": text, "attention_mask": mask, "decoder_input_ids": answer}
    first = calls.decode(answer)
    want = by_task(reference, inputs, [-1, -1, 1])
    assert want.task is not None and first["task_id_used"].tolist() == want.task.tolist()
    _close(first["logits"], want.outputs["logits"])


@pytest.mark.parametrize("name", ["t5", "mt5"])
def test_tucka(folders: Folders, tmp_path: Path, name: str) -> None:
    """The encoder routes, once, and the decoder follows."""
    base = folders(name)
    adapter = write_tucka(tmp_path / "tucka", linear_shapes(base, TARGETS), seed=2)
    reference = trained_model(base, [adapter])
    for routing, rows in (("batch", 1), ("row", 4), ("prompt", 4)):
        options = ExportOptions(mode="dynamic", routing=routing)  # type: ignore[arg-type]
        bundle = export_bundle(base, [adapter], tmp_path / routing, options)
        how = "batch" if routing == "batch" else "row"
        for kernels in (True, False):
            encoded = _compare(bundle, reference, None, kernels=kernels, routing=how)
            assert encoded["route_group"].shape == (rows,) and encoded["route_weights"].shape == (rows, 2)
    route = Route(1, (0.7, 0.4))
    bundle = export_bundle(base, [adapter], tmp_path / "c", ExportOptions(mode="conditioned", routes={None: route}))
    _compare(bundle, reference, [0, 1, 0, 1], route=route)
    bundle = export_bundle(base, [adapter], tmp_path / "s", ExportOptions(mode="static", routes={None: route}))
    _compare(bundle, reference, [0] * 4, route=route)


def _decoder_tucka(base: Path, folder: Path, *, cross: bool) -> Path:
    """A TuckA adapter whose router is in the decoder."""
    names = [n for n in linear_shapes(base, TARGETS) if n.startswith("decoder")]
    kept = [n for n in names if cross or not n.endswith(("EncDecAttention.k", "EncDecAttention.v"))]
    return write_tucka(folder, {n: linear_shapes(base, TARGETS)[n] for n in kept}, seed=2)


def test_a_router_in_the_decoder(folders: Folders, tmp_path: Path) -> None:
    """It routes by the tokens of each call; with routing prompt, those of the first call decide."""
    base = folders("t5")
    adapter = _decoder_tucka(base, tmp_path / "tucka", cross=False)
    reference = trained_model(base, [adapter])
    text, mask = texts(3)
    answer = np.random.default_rng(6).integers(2, VOCABULARY, (3, 9))  # as many as the text has positions
    inputs = {"input_ids": text, "attention_mask": mask, "decoder_input_ids": answer}
    for routing, how in (("batch", "batch"), ("row", "row"), ("prompt", "row")):
        options = ExportOptions(mode="dynamic", routing=routing)  # type: ignore[arg-type]
        calls = Calls(export_bundle(base, [adapter], tmp_path / routing, options))
        free = {"route_group": np.full(3, -1), "route_weights": np.zeros((3, 2), np.float32)}
        calls.encode(text, mask)
        got = calls.decode(answer, **(free if routing == "prompt" else {}))
        want = by_task(reference, inputs, None, routing=how)  # type: ignore[arg-type]
        _close(got["logits"], want.outputs["logits"])
    assert want.group is not None and got["route_group_used"].tolist() == want.group.tolist()
    assert want.weights is not None
    routes = [Route(int(g), tuple(map(float, w))) for g, w in zip(want.group, want.weights, strict=True)]
    longer = {**inputs, "decoder_input_ids": np.concatenate([answer, answer[:, :1]], axis=1)}
    _close(
        calls.decode(answer[:, :1])["logits"], by_task(reference, longer, None, route=routes).outputs["logits"][:, -1:]
    )


def test_a_router_that_runs_too_late(folders: Folders, tmp_path: Path) -> None:
    base = folders("t5")
    adapter = _decoder_tucka(base, tmp_path / "tucka", cross=True)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["router_name"] == ""
    with pytest.raises(NotSupportedError, match=r"router decoder\.block\.0.* runs after modules that it routes"):
        export_bundle(base, [adapter], tmp_path / "b", ExportOptions(mode="dynamic"))
    assert not (tmp_path / "b").exists()


def test_lora(folders: Folders, tmp_path: Path) -> None:
    base = folders("t5 gated")
    shapes = linear_shapes(base, TARGETS)
    fewer = {n: s for n, s in shapes.items() if n.startswith("encoder")}
    adapters = [write_lora(tmp_path / "a", shapes, seed=3), write_lora(tmp_path / "b", fewer, seed=4, rank=7)]
    reference = trained_model(base, adapters)
    bundle = export_bundle(base, adapters, tmp_path / "c", ExportOptions(mode="conditioned"))
    for kernels in (True, False):
        _compare(bundle, reference, [1, 0, 2, 1], kernels=kernels)
    bundle = export_bundle(base, adapters, tmp_path / "s", ExportOptions(mode="static", task="b"))
    _compare(bundle, reference, [1] * 4)


@pytest.mark.parametrize("mode", ["static", "conditioned", "dynamic"])
def test_fp16_storage(folders: Folders, tmp_path: Path, mode: str) -> None:
    base = folders("t5")
    adapter = _ept(base, tmp_path / "ept")
    task = "task1" if mode == "static" else None
    sizes, logits = {}, {}
    text, mask = texts(2)
    for precision in ("fp32", "fp16"):
        options = ExportOptions(mode=mode, task=task, top_k=2, precision=precision)  # type: ignore[arg-type]
        bundle = export_bundle(base, [adapter], tmp_path / precision, options)
        calls = Calls(bundle)
        calls.encode(text, mask, **({} if task else {"task_id": np.array([1, 1])}))
        logits[precision] = calls.decode(np.array([[0, 5], [0, 8]]))["logits"]
        models = [ir.load(bundle.path / name) for name in ("encoder.onnx", "model.onnx")]
        tensors = [value.const_value for model in models for value in model.graph.initializers.values()]
        sizes[precision] = sum(t.nbytes for t in tensors if t is not None and t.size >= 256)
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert 0 < np.abs(logits["fp16"] - logits["fp32"]).max() <= 1e-2 * np.abs(logits["fp32"]).max()


def test_a_module_map_names_modules_of_both_parts(folders: Folders, tmp_path: Path) -> None:
    base = folders("t5")
    names = ["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.0.SelfAttention.q"]
    adapter = write_lora(tmp_path / "a", {n: linear_shapes(base, TARGETS)[n] for n in names}, seed=3)
    places = {name: f"/{name}/MatMul" for name in names}
    bundle = export_bundle(base, [adapter], tmp_path / "c", ExportOptions(mode="conditioned", module_map=places))
    _compare(bundle, trained_model(base, [adapter]), [0, 1, 0, 1])
    options = ExportOptions(mode="conditioned", module_map={"encoder.other": "x"})
    with pytest.raises(UsageError, match=r"names modules that the adapter does not adapt: encoder\.other"):
        export_bundle(base, [adapter], tmp_path / "d", options)


def test_encoder_decoders_that_are_not_supported(tmp_path: Path) -> None:
    from transformers import ProphetNetConfig, ProphetNetForConditionalGeneration

    sizes = {f"num_{part}_{what}": 1 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = ProphetNetConfig(vocab_size=20, hidden_size=8, encoder_ffn_dim=8, decoder_ffn_dim=8, **sizes)
    ProphetNetForConditionalGeneration(config).save_pretrained(tmp_path / "prophetnet")
    with pytest.raises(NotSupportedError, match="a ProphetNetForConditionalGeneration"):
        load_encoder_decoder(tmp_path / "prophetnet")


def test_both_graphs_are_quantized(folders: Folders, tmp_path: Path) -> None:
    base = folders("t5")
    adapter = _ept(base, tmp_path / "ept")
    options = ExportOptions(mode="conditioned", top_k=2, precision="int4")
    manifest = export_bundle(base, [adapter], tmp_path / "b", options).manifest
    assert manifest.precision == "int4" and manifest.quantization is not None
    products = manifest.quantization.products
    assert set(products.values()) == {"int4-blocks"}
    assert {name.startswith("encoder:") for name in products} == {True, False}


@pytest.mark.parametrize("name", ["eos_token_id", "decoder_start_token_id", "pad_token_id"])
def test_tokens_that_generation_needs(tmp_path: Path, name: str) -> None:
    base = write_encoder_decoder("t5", tmp_path / "base")
    (base / "generation_config.json").unlink()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {name: VOCABULARY}))
    with pytest.raises(BaseModelError, match=rf"{name} must be a token of the vocabulary, it is {VOCABULARY}"):
        load_encoder_decoder(base)
