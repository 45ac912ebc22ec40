"""Decoders by GenAI's builder: every architecture in every mode, with a growing cache, against PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter import ExportOptions, Route, read_adapter
from eptx.exporter.bases import load_genai
from eptx.exporter.bases.products.nbits import dequantize
from eptx.exporter.bases.products.nbits import step as nbits_step
from eptx.exporter.quiet import quiet
from eptx.exporter.steps.fold import fold
from eptx.exporter.trained import Trained
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_lora, write_tucka
from tests.support.decoders import DECODERS, Steps, write_decoder, write_tokenizer
from tests.support.int4 import as_float, as_half, dequantized
from tests.support.trained import by_task, trained_model

TOLERANCE = 1e-4
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "qkv_proj", "dense", "fc1", "lm_head")
PROMPTS = [[5, 17, 40, 9, 22], [33, 8], [61, 7, 100], [90]]
FORCED = [[11, 45, 3], [12, 46, 4], [13, 47, 5], [14, 48, 6]]
Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Architecture -> its transformers folder; each is made once."""
    return functools.cache(lambda name: write_decoder(name, tmp_path_factory.mktemp("decoder") / "base"))


def _targets(base: Path) -> dict[str, tuple[int, int]]:
    """The adapted layers: of a base whose lm_head is its embeddings, all but that."""
    return linear_shapes(base, TARGETS)


def _ept(base: Path, folder: Path) -> Path:
    return write_ept(folder, _targets(base), seed=1, tasks=3, sizes=(2, 3, 3, 5), strength=0.2)


def _compare(
    bundle: Bundle, reference: Trained, ids: list[int], *, kernels: bool = True, tolerance: float = TOLERANCE
) -> None:
    """Prefill and decode steps of ragged rows against whole rows in PyTorch."""
    steps = Steps(bundle, kernels=kernels)
    inputs = {"task_id": np.array(ids)} if bundle.manifest.mode != "static" else {}
    rows = [list(prompt) for prompt in PROMPTS]
    got = steps.prefill(rows, **inputs)["logits"]
    for i, row in enumerate(rows):
        _close(got[i, : len(row)], reference, row, ids[i], tolerance)
    for n in range(len(FORCED[0])):
        tokens = [forced[n] for forced in FORCED]
        got = steps.decode(tokens, **inputs)["logits"]
        for i, row in enumerate(rows):
            row.append(tokens[i])
            _close(got[i], reference, row, ids[i], tolerance)


def _close(
    got: np.ndarray,
    reference: Trained,
    row: list[int],
    task: int | None,
    tolerance: float = TOLERANCE,
    **how: Any,
) -> None:
    inputs = {"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)}
    want = by_task(reference, inputs, None if task is None else [task], **how).outputs["logits"][0]
    want = want[-len(got) :]
    assert np.abs(got - want).max() <= tolerance * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("name", DECODERS)
def test_ept(folders: Folders, tmp_path: Path, name: str, kernels: bool) -> None:
    base = folders(name)
    adapter = _ept(base, tmp_path / "ept")
    reference = trained_model(base, [adapter], top_k=2)
    for mode in ("conditioned", "dynamic"):
        bundle = export_bundle(base, [adapter], tmp_path / mode, ExportOptions(mode=mode, top_k=2))  # type: ignore[arg-type]
        _compare(bundle, reference, [2, 3, 0, 1], kernels=kernels)
    if kernels:
        options = ExportOptions(mode="static", task="task1", top_k=2)
        _compare(export_bundle(base, [adapter], tmp_path / "static", options), reference, [1] * 4)


def test_a_graph_says_no_commit_of_the_machine(folders: Folders, tmp_path: Path) -> None:
    """GenAI's builder asks git for the commit of the repository that it lies in, a user's own one for example."""
    base = folders("llama")
    bundle = export_bundle(base, [_ept(base, tmp_path / "ept")], tmp_path / "b", ExportOptions(mode="dynamic", top_k=2))
    assert ir.load(bundle.model).producer_version == version("onnxruntime-genai")


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_tucka_with_a_route_per_row(folders: Folders, tmp_path: Path, name: str) -> None:
    """Row routing is of this call's positions; a whole row and its last token differ, so the prefill alone compares."""
    base = folders(name)
    adapter = write_tucka(tmp_path / "tucka", _targets(base), seed=2)
    reference = trained_model(base, [adapter])
    bundle = export_bundle(base, [adapter], tmp_path / "row", ExportOptions(mode="dynamic", routing="row"))
    got = Steps(bundle).prefill(PROMPTS)["logits"]
    for i, row in enumerate(PROMPTS):
        _close(got[i, : len(row)], reference, row, None, routing="row")


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("wide", ["hidden_size", "intermediate_size"])
def test_layers_as_wide_as_the_vocabulary(tmp_path: Path, wide: str, precision: Any) -> None:
    """The builder (0.18) took every one of them for the head, and gave the logits of the first layer's query."""
    base = write_decoder("llama", tmp_path / "base", **{"vocab_size": 128, wide: 128})
    shapes = linear_shapes(base, ("q_proj", "down_proj"))
    adapter = write_lora(tmp_path / "lora", shapes, seed=1)
    options = ExportOptions(mode="conditioned", precision=precision)
    bundle = export_bundle(base, [adapter], tmp_path / "b", options)
    settings = ValidateOptions(base=base, adapters=[adapter], providers=["cpu"])
    report = validate_bundle(bundle.path, settings)
    assert report.passed, report.reason
    if precision == "fp32":
        ids = np.array([PROMPTS[0]])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        want = by_task(trained_model(base, [adapter]), feeds).outputs["logits"]
        got = Steps(bundle).prefill(PROMPTS[:1], task_id=np.zeros(1, np.int64))["logits"]
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(want).max())))


def test_the_route_of_the_prompt_is_kept(folders: Folders, tmp_path: Path) -> None:
    base = folders("llama")
    adapter = write_tucka(tmp_path / "tucka", _targets(base), seed=2, strength=0.5)
    bundle = export_bundle(base, [adapter], tmp_path / "b", ExportOptions(mode="dynamic", routing="prompt"))
    reference = trained_model(base, [adapter])
    steps = Steps(bundle)
    unset = {"route_group": np.full(4, -1), "route_weights": np.zeros((4, 2), np.float32)}
    outputs = steps.prefill(PROMPTS, **unset)
    kept = {name: outputs[f"{name}_used"] for name in unset}
    rows = [list(prompt) for prompt in PROMPTS]
    for n in range(3):
        tokens = [forced[n] for forced in FORCED]
        got = steps.decode(tokens, **kept)["logits"]
        for i, row in enumerate(rows):
            row.append(tokens[i])
            route = Route(int(kept["route_group"][i]), tuple(kept["route_weights"][i].astype(float)))
            _close(got[i], reference, row, None, route=route)


def test_lora(folders: Folders, tmp_path: Path) -> None:
    base = folders("qwen2")
    shapes = _targets(base)
    adapters = [write_lora(tmp_path / "a", shapes, seed=3), write_lora(tmp_path / "b", shapes, seed=4, rank=7)]
    bundle = export_bundle(base, adapters, tmp_path / "bundle", ExportOptions(mode="conditioned"))
    _compare(bundle, trained_model(base, adapters), [1, 0, 2, 1])


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("name", ["llama", "llama tied", "qwen2", "gemma2", "phi3"])
def test_int4_computes_on_the_dequantized_base(folders: Folders, tmp_path: Path, name: str, kernels: bool) -> None:
    """With the products' weights read back into PyTorch, and activations that are not quantized."""
    base = folders(name)
    adapter = _ept(base, tmp_path / "ept")
    options = ExportOptions(mode="conditioned", top_k=2, precision="int4")
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", options)
    assert bundle.manifest.precision == "int4"
    as_float(bundle)
    reference = trained_model(dequantized(base, tmp_path), [as_half(adapter)], top_k=2)
    _compare(bundle, reference, [2, 3, 0, 1], kernels=kernels, tolerance=2e-3)


def test_int4_for_cuda(tmp_path: Path) -> None:
    """Its blocks are made of weights in float16, with scales in float16: some are off by a little more than a step."""
    base = write_decoder("llama", tmp_path / "base", hidden_size=128, intermediate_size=256)
    adapter = write_ept(tmp_path / "ept", linear_shapes(base, ("q_proj", "v_proj", "down_proj")), seed=2)
    options = ExportOptions(mode="conditioned", top_k=2, precision="int4", provider="cuda")
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", options)
    assert validate_bundle(bundle.path, ValidateOptions(providers=["cpu"])).passed


def test_int4_static_is_folded_before_it_is_quantized(folders: Folders, tmp_path: Path) -> None:
    base = folders("llama")
    adapter = read_adapter([_ept(base, tmp_path / "ept")], top_k=2)
    options = ExportOptions(mode="static", task="task1", top_k=2, precision="int4")
    bundle = export_bundle(base, [tmp_path / "ept"], tmp_path / "bundle", options)
    model = ir.load(bundle.model)
    nodes = {node.outputs[0].name: node for node in model.graph}
    weights = load_file(base / "model.safetensors")
    for module, place in bundle.manifest.modules.items():
        node = nodes[place.output]
        stored = dequantize(node)
        step = nbits_step(node)
        assert stored is not None and step is not None
        folded = fold(adapter, module, weights[f"{module}.weight"].astype(np.float64), options)
        start, stop = place.columns
        assert (np.abs(stored[start:stop] - folded) <= 1.01 * step[start:stop]).all(), module
        assert (np.abs(stored[start:stop] - weights[f"{module}.weight"]) > 1.01 * step[start:stop]).any(), module


def test_a_bfloat16_base_is_folded_in_float32(folders: Folders, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(folders("llama")).to(torch.bfloat16).save_pretrained(half)
    write_tokenizer(half, 120)
    adapter = _ept(half, tmp_path / "ept")
    reference = trained_model(half, [adapter], top_k=2)
    options = ExportOptions(mode="static", task="task2", top_k=2)
    _compare(export_bundle(half, [adapter], tmp_path / "static", options), reference, [2] * 4)
    options = ExportOptions(mode="conditioned", top_k=2)
    _compare(export_bundle(half, [adapter], tmp_path / "conditioned", options), reference, [0, 1, 2, 3])


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_float16(folders: Folders, tmp_path: Path, provider: Any) -> None:
    """Stored so for CPUs, computed so for CUDA; the CPU runs that graph too."""
    base = folders("qwen2")
    adapter = _ept(base, tmp_path / "ept")
    options = ExportOptions(mode="conditioned", top_k=2, precision="fp16", provider=provider)
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", options)
    logits = next(spec for spec in bundle.manifest.outputs if spec.name == "logits")
    assert logits.dtype == ("float32" if provider == "cpu" else "float16")
    assert (
        sum(entry.size for entry in bundle.manifest.files.values()) < 0.8 * (base / "model.safetensors").stat().st_size
    )
    reference = trained_model(base, [adapter], top_k=2)
    _compare(bundle, reference, [2, 3, 0, 1], kernels=provider == "cpu", tolerance=2e-2)  # kernels read float32


def test_a_graph_that_genai_has_built_is_a_base(folders: Folders, tmp_path: Path) -> None:
    base = folders("llama tied")
    load_genai(base, tmp_path / "built", precision="int4")
    adapter = _ept(base, tmp_path / "ept")
    from_folder = ExportOptions(mode="conditioned", top_k=2, precision="int4")
    from_file = ExportOptions(
        mode="conditioned", top_k=2, precision="int4", base_onnx=tmp_path / "built" / "model.onnx"
    )
    one = export_bundle(base, [adapter], tmp_path / "one", from_folder)
    two = export_bundle(base, [adapter], tmp_path / "two", from_file)
    assert one.manifest.files["model.onnx.data"] == two.manifest.files["model.onnx.data"]
    assert one.manifest.generation == two.manifest.generation
    ids = {"task_id": np.array([0, 1, 2, 3])}
    np.testing.assert_array_equal(
        Steps(one).prefill(PROMPTS, **ids)["logits"], Steps(two).prefill(PROMPTS, **ids)["logits"]
    )


@pytest.mark.parametrize("scheme", ["k_quant", "k_quant_mixed", "rtn"])
def test_a_graph_that_was_quantized_in_another_way_is_a_base(tmp_path: Path, scheme: str) -> None:
    """k_quant cuts off the largest values of a block, so some are further off than a step."""
    from onnxruntime_genai.models import builder

    base = write_decoder("llama", tmp_path / "base", hidden_size=128, intermediate_size=256, vocab_size=160)
    where = (str(base), str(tmp_path / "built"), "int4", "cpu", str(tmp_path / "cache"))
    with quiet():
        how = ["hf_token=false", "windowed_kv_cache=false", f"algo_config={scheme}"]
        settings = builder.parse_extra_options("", *where, how)
        builder.create_model("", *where, **settings)
    adapter = _ept(base, tmp_path / "ept")
    options = ExportOptions(mode="conditioned", top_k=2, precision="int4", base_onnx=tmp_path / "built" / "model.onnx")
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", options)
    report = validate_bundle(bundle.path, ValidateOptions(base=base, adapters=[adapter], top_k=2, providers=["cpu"]))
    assert report.passed, report.reason
    other = write_decoder("llama", tmp_path / "o", seed=1, hidden_size=128, intermediate_size=256, vocab_size=160)
    with pytest.raises(BaseModelError, match="have other weights in the base graph than in the base folder"):
        export_bundle(other, [adapter], tmp_path / "wrong", options)


def test_architectures_that_are_not_supported(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20))
    model.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(NotSupportedError, match=r"builder .* does not know a GPT2LMHeadModel"):
        load_genai(tmp_path / "gpt2", tmp_path / "w")
