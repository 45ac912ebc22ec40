"""Windows and rotary positions of decoders, past the window and at scaled positions, against transformers' logits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import BaseModelError, NotSupportedError, RequestError
from eptx.exporter import ExportOptions
from eptx.exporter.bases import load_genai
from eptx.exporter.bases.not_built import NotBuiltError
from eptx.exporter.quiet import quiet
from eptx.exporter.trained import Trained
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.runtime.session import Session
from tests.exporter.validation.adapters import linear_shapes, write_ept
from tests.matrix import table
from tests.matrix.made import write_base
from tests.support.decoders import Steps, write_decoder
from tests.support.int4 import as_float, as_half, dequantized
from tests.support.trained import by_task, trained_model

_TARGETS = ("q_proj", "v_proj", "down_proj", "qkv_proj", "dense")
_WINDOW = 8
_LENGTHS = (40, 9)
_SOME = {"sliding_window": _WINDOW, "use_sliding_window": True}
#: name -> decoder, settings: windows in every layer, in some, and where the model's code reads none.
WINDOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("mistral", {"sliding_window": _WINDOW}),
    "phi3": ("phi3", {"sliding_window": _WINDOW}),
    "qwen2, the last layer": ("qwen2", _SOME | {"max_window_layers": 1}),
    "qwen2, by its layers' types": ("qwen2", _SOME | {"layer_types": ["sliding_attention", "full_attention"]}),
    "qwen3, all layers": ("qwen3", _SOME | {"max_window_layers": 0}),
    "gemma2, every second layer": ("gemma2", {"sliding_window": _WINDOW}),
    "qwen2, not used": ("qwen2", {"sliding_window": _WINDOW, "use_sliding_window": False}),
    "llama has none": ("llama", {"sliding_window": _WINDOW}),
    "gemma has none": ("gemma", {"sliding_window": _WINDOW}),
    "phi has none": ("phi", {"sliding_window": _WINDOW}),
}
_THETA = {"rope_theta": 10000.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, **_THETA}
_LINEAR = {"rope_type": "linear", "factor": 4.0, **_THETA}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    **_THETA,
}
_LONG = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 48,
    "short_factor": [1 + i / 10 for i in range(8)],
    "long_factor": [4.0 + i for i in range(8)],
    **_THETA,
}
_HALF = {"partial_rotary_factor": 0.5}
_HALF_OF_ALL = {"rope_type": "default", **_HALF, **_THETA}
#: name -> decoder, settings.
ROTARY: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{name}, yarn": (name, {"rope_parameters": _YARN}) for name in ("llama", "mistral", "qwen2", "qwen3", "gemma2")
    },
    "llama, yarn with its own factors": (
        "llama",
        {"rope_parameters": _YARN | {"attention_factor": 1.3, "beta_fast": 16.0, "beta_slow": 2.0}},
    ),
    "phi, yarn": ("phi", {"rope_parameters": _YARN | _HALF}),
    **{f"{name}, linear": (name, {"rope_parameters": _LINEAR}) for name in ("llama", "qwen2", "gemma")},
    "llama, llama3": ("llama", {"rope_parameters": _LLAMA3}),
    "qwen3, llama3": ("qwen3", {"rope_parameters": _LLAMA3}),
    "mistral, dynamic": ("mistral", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, **_THETA}}),
    "phi3, longrope": ("phi3", {"rope_parameters": _LONG, "original_max_position_embeddings": 48}),
    "llama, longrope": ("llama", {"rope_parameters": _LONG}),
    "phi3, half of every head": (
        "phi3",
        {"head_dim": 32, "rope_parameters": {"rope_type": "default"} | _HALF | _THETA},
    ),
    "llama, another base": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
}


def _adapter(base: Path, folder: Path) -> Path:
    return write_ept(folder, linear_shapes(base, _TARGETS), seed=1, tasks=2, sizes=(2, 3, 3, 5), strength=0.2)


def _rows(lengths: Sequence[int] = _LENGTHS) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(5, 110, length).tolist() for length in lengths]


def _wanted(reference: Trained, row: Sequence[int], task: int) -> np.ndarray:
    """Logits [length, vocabulary] of a whole row in transformers."""
    inputs = {"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)}
    logits: np.ndarray = by_task(reference, inputs, [task]).outputs["logits"][0]
    return logits


def _compare(bundle: Bundle, reference: Trained, tolerance: float = 1e-5) -> None:
    """Ragged rows of two tasks: the prompt, then five tokens one by one through the cache."""
    steps, rows, static = Steps(bundle), _rows(), bundle.manifest.mode == "static"
    tasks = [0, 0] if static else [1, 0]
    inputs = {} if static else {"task_id": np.array(tasks)}

    def check(got: np.ndarray, row: Sequence[int], task: int) -> None:
        wanted = _wanted(reference, row, task)[-len(got) :]
        assert np.abs(got - wanted).max() <= tolerance * max(1.0, float(np.abs(wanted).max()))

    logits = steps.prefill(rows, **inputs)["logits"]
    for row, task, got in zip(rows, tasks, logits, strict=True):
        check(got[: len(row)], row, task)
    for token in range(11, 16):
        logits = steps.decode([token] * len(rows), **inputs)["logits"]
        for row, task, got in zip(rows, tasks, logits, strict=True):
            row.append(token)
            check(got, row, task)


def _write(case: tuple[str, dict[str, Any]], folder: Path) -> Path:
    name, settings = case
    return write_decoder(name, folder, **settings)


@pytest.mark.parametrize("name", [*WINDOWS, *ROTARY])
def test_every_decoder_sees_as_transformers(tmp_path: Path, name: str) -> None:
    base = _write((WINDOWS | ROTARY)[name], tmp_path / "base")
    adapter = _adapter(base, tmp_path / "ept")
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="conditioned", top_k=2))
    _compare(bundle, trained_model(base, [adapter], top_k=2))


@pytest.mark.parametrize("name", ["mistral", "gemma2, every second layer", "qwen2, yarn"])
def test_folded_into_the_weights(tmp_path: Path, name: str) -> None:
    base = _write((WINDOWS | ROTARY)[name], tmp_path / "base")
    adapter = _adapter(base, tmp_path / "ept")
    options = ExportOptions(mode="static", task="task0", top_k=2)
    _compare(export_bundle(base, [adapter], tmp_path / "bundle", options), trained_model(base, [adapter], top_k=2))


@pytest.mark.parametrize(
    "name", ["mistral", "phi3", "gemma2, every second layer", "qwen3, all layers", "llama, linear"]
)
def test_int4(tmp_path: Path, name: str) -> None:
    base = _write((WINDOWS | ROTARY)[name], tmp_path / "base")
    adapter = _adapter(base, tmp_path / "ept")
    options = ExportOptions(mode="conditioned", top_k=2, precision="int4")
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", options)
    as_float(bundle)
    reference = trained_model(dequantized(base, tmp_path), [as_half(adapter)], top_k=2)
    _compare(bundle, reference, tolerance=2e-3)


@pytest.mark.parametrize("name", ["mistral", "phi3", "qwen2, the last layer", "llama, yarn"])
def test_answers_past_the_window(tmp_path: Path, name: str) -> None:
    """Prompts longer and shorter than the window, and answers that go past it, by GenAI."""
    base = _write((WINDOWS | ROTARY)[name], tmp_path / "base")
    adapter = _adapter(base, tmp_path / "ept")
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="conditioned", top_k=2))
    reference = trained_model(base, [adapter], top_k=2)
    prompts = _rows((30, 3))
    got = Session(bundle.path, provider="cpu").generate(prompts, ["task1", "task0"], max_new_tokens=16)
    for prompt, answer, task in zip(prompts, got.token_ids, (1, 0), strict=True):
        assert len(answer) == 16 or answer[-1] == 2
        logits = _wanted(reference, [*prompt, *answer], task)[len(prompt) - 1 : -1]
        assert list(answer) == logits.argmax(1).tolist()


def test_a_graph_that_was_built_without(tmp_path: Path) -> None:
    """The user's own graph by GenAI's builder gets the windows and the tables as well."""
    from onnxruntime_genai.models import builder

    base = write_decoder("mistral", tmp_path / "base", sliding_window=_WINDOW, rope_parameters=_LINEAR)
    where = (str(base), str(tmp_path / "built"), "fp32", "cpu", str(tmp_path / "cache"))
    with quiet():
        settings = builder.parse_extra_options("", *where, ["hf_token=false", "windowed_kv_cache=false"])
        builder.create_model("", *where, **settings)
    adapter = _adapter(base, tmp_path / "ept")
    options = ExportOptions(mode="conditioned", top_k=2, base_onnx=tmp_path / "built" / "model.onnx")
    _compare(export_bundle(base, [adapter], tmp_path / "bundle", options), trained_model(base, [adapter], top_k=2))


def test_longrope_ends_where_its_tables_change(tmp_path: Path) -> None:
    base = _write(ROTARY["phi3, longrope"], tmp_path / "base")
    adapter = _adapter(base, tmp_path / "ept")
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="conditioned", top_k=2))
    settings = json.loads((bundle.path / "genai_config.json").read_text())
    assert (bundle.manifest.max_length, settings["model"]["context_length"], settings["search"]["max_length"]) == (
        48,
    ) * 3
    session = Session(bundle.path, provider="cpu")
    assert len(session.generate(_rows((40,)), "task0", max_new_tokens=8).token_ids[0]) <= 8
    with pytest.raises(RequestError, match="9 more do not fit: the model reads at most 48"):
        session.generate(_rows((40,)), "task0", max_new_tokens=9)


@pytest.mark.parametrize(
    ("name", "settings", "error", "says"),
    [
        ("phi3", {"rope_parameters": _HALF_OF_ALL}, NotSupportedError, "turns 8 values"),
        ("llama", {"head_dim": 24}, NotSupportedError, "turns 24 values of every head; GroupQueryAttention turns mul"),
        ("llama", {"head_dim": 32, "rope_parameters": _LINEAR | _HALF}, BaseModelError, "16 of 32 values, which llama"),
    ],
)
def test_positions_that_no_operator_turns(
    tmp_path: Path, name: str, settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    base = write_decoder(name, tmp_path / "base", **settings)
    with pytest.raises(error, match=says):
        load_genai(base, tmp_path / "work")


def test_a_part_that_is_turned_is_no_matter_of_a_model_that_is_not_built(tmp_path: Path) -> None:
    with quiet():
        write_base(table.row("StableLM"), tmp_path / "base")
    with pytest.raises(NotBuiltError, match="does not know a StableLmForCausalLM"):
        load_genai(tmp_path / "base", tmp_path / "work")


@pytest.mark.parametrize(
    ("rope", "says"),
    [
        ({"rope_type": "yarn", **_THETA}, "config.json"),
        ({"rope_type": "linear", "factor": 0.0, **_THETA}, "config.json"),
        ({"rope_type": "spiral", **_THETA}, "config.json"),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64, **_THETA}, "config.json"),
        ({"rope_type": "yarn", "factor": "four", "original_max_position_embeddings": 64, **_THETA}, "config.json"),
    ],
)
def test_scaling_that_transformers_refuses(tmp_path: Path, rope: dict[str, Any], says: str) -> None:
    base = write_decoder("llama", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    with pytest.raises((BaseModelError, NotSupportedError), match=says) as caught:
        load_genai(base, tmp_path / "work")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [("mistral", "layer 0 sees the last 8 tokens only"), ("gemma2", "layer 0 caps its scores")],
)
def test_attention_that_has_no_window(tmp_path: Path, name: str, says: str) -> None:
    """In float32 on CUDA the builder takes another operator."""
    base = write_decoder(name, tmp_path / "base", sliding_window=_WINDOW)
    with pytest.raises(NotSupportedError, match=f"{says}, which its attention in this graph cannot; for cuda use"):
        load_genai(base, tmp_path / "work", provider="cuda")
    load_genai(base, tmp_path / "half", provider="cuda", precision="fp16")
    plain = write_decoder("llama", tmp_path / "llama")
    with pytest.raises(NotSupportedError, match=r"whose present\.0\.key no node computes"):
        load_genai(plain, tmp_path / "plain", provider="cuda")


@pytest.mark.parametrize("name", ["phi3, longrope", "llama, yarn", "phi3", "gemma2, every second layer"])
def test_the_judge_agrees(tmp_path: Path, name: str) -> None:
    """With batches of ragged rows, and rows as long as the context."""
    base = _write((WINDOWS | ROTARY)[name], tmp_path / "base")
    adapter = _adapter(base, tmp_path / "ept")
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="conditioned", top_k=2))
    options = ValidateOptions(base=base, adapters=[adapter], top_k=2, providers=["cpu"])
    report = validate_bundle(bundle.path, options)
    assert report.passed, report.reason
