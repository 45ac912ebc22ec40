"""Honest bundles are accused of nothing, whatever their architecture, mode and stored type, and all of them is told."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
from peft import LoraConfig, get_peft_model

from eptx.bundle import Bundle
from eptx.exporter import ExportOptions
from eptx.exporter.validation.contents.tensors import compare_tensors
from eptx.runtime.validation.check import Check
from tests.exporter.validation.contents.tensors.bases import Base, Made, trained, wrongs
from tests.support.decoders import DECODERS
from tests.support.quantized import quantized

ENCODERS = ("bert", "roberta", "deberta", "deberta_shared", "vit", "albert")
WINDOWED = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}


def _honest(base: Base, bundle: Bundle) -> list[Check]:
    checks = base.checks(bundle)
    assert wrongs(checks) == {}
    assert [check for check in checks if check.how == "unchecked"] == []
    assert len({check.name for check in checks}) == len(checks)
    return checks


def _compared(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if check.how == "compared"}


@pytest.mark.parametrize("mode", ["static", "conditioned"])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(made: Made, name: str, mode: str) -> None:
    base = made(name)
    for precision in ("fp32", "fp16"):
        checks = _honest(base, base.bundle(mode, precision))
        if mode == "conditioned":  # nothing is folded, so all of the base is there
            assert _compared(checks) == {check.name for check in checks}
        else:
            assert {check.name for check in checks} - _compared(checks) <= {f"{name}.weight" for name in _today(base)}


def _today(base: Base) -> set[str]:
    return {name for name, module in base.model.named_modules() if isinstance(module, torch.nn.Linear)}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int4"])
@pytest.mark.parametrize("name", DECODERS)
def test_decoders(made: Made, name: str, precision: str) -> None:
    base = made(name)
    for mode in ("static", "conditioned"):
        checks = _honest(base, base.bundle(mode, precision))
        layers = base.model.config.num_hidden_layers
        assert _compared(checks) >= {"rotary table cos_cache", "rotary table sin_cache"}
        assert {f"attention of layer {i}" for i in range(layers)} <= _compared(checks)
        rest = {check.why for check in checks if check.how == "run"}
        folded = {"the graph holds it with its task"} if mode == "static" else set()
        assert rest == folded | ({"quantized: see its bounds"} if precision == "int4" else set())


@pytest.mark.parametrize("name", ["t5 gated", "t5"])
def test_encoder_decoders(made: Made, name: str) -> None:
    checks = _honest(made(name), made(name).bundle())
    assert _compared(checks) == {check.name for check in checks}
    assert {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"} <= _compared(checks)


@pytest.mark.parametrize("name", ["gemma2", "qwen2", "qwen3", "mistral", "phi3"])
def test_windows(made: Made, name: str) -> None:
    base = made(name, **WINDOWED) if name.startswith("qwen") else made(name, sliding_window=16)
    _honest(base, base.bundle())


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 500000.0},
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64},
        {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
        {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_rotary_tables_of_every_kind(made: Made, rope: dict[str, object]) -> None:
    base = made("llama", rope_parameters=rope, max_position_embeddings=8192)
    _honest(base, base.bundle())


def test_rotary_tables_that_change_with_the_length(made: Made) -> None:
    """The graph ends where another table begins."""
    factors = {"short_factor": [1 + i / 10 for i in range(8)], "long_factor": [4.0 + i for i in range(8)]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64}
    base = made("phi3", original_max_position_embeddings=64, rope_parameters=rope | factors)
    names = _compared(_honest(base, base.bundle()))
    assert names >= {f"rotary table {x}_cache" for x in ("cos", "sin")}
    assert base.bundle().manifest.max_length == 64


@pytest.mark.parametrize("scheme", ["int8", "int8-static", "int4-blocks"])
def test_quantized_encoders(made: Made, tmp_path: Path, scheme: str) -> None:
    base = made("bert")
    options = ExportOptions(mode="conditioned", base_onnx=base.workshop.onnx)
    bundle = quantized(base.workshop.base, base.adapters, tmp_path / "bundle", options, scheme)  # type: ignore[arg-type]
    checks = _honest(base, bundle)
    rest = {check.name: check.why for check in checks if check.how == "run"}
    assert set(rest.values()) == {"quantized: see its bounds"}
    assert {"bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"} <= set(rest)
    assert not any(name.endswith("bias") or "LayerNorm" in name for name in rest)


def test_a_model_that_peft_made(made: Made) -> None:
    """Adapted layers and saved modules have other names in it, and tensors that are not the base's."""
    base = made("bert")
    alone = _honest(base, base.bundle())
    settings = LoraConfig(target_modules=["query", "value"], modules_to_save=["classifier"])
    model = get_peft_model(trained(base.workshop.base), settings)
    before = {name: (p.requires_grad, p.clone()) for name, p in model.named_parameters()}
    checks = compare_tensors(base.bundle(), model, (), {}, {})
    assert checks == alone
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == before[name][0]
        assert torch.equal(parameter, before[name][1])


def test_nothing_that_no_output_depends_on(made: Made) -> None:
    """A pooler behind which nothing reads is not demanded, nor is its absence told."""
    base = made("bert")
    from transformers import BertForTokenClassification

    torch.manual_seed(0)
    with mock.patch.object(base, "model", BertForTokenClassification(base.model.config).eval()):
        names = {check.name for check in base.checks(base.bundle())}
    assert "bert.encoder.layer.0.attention.self.query.weight" in names
    assert not any("pooler" in name for name in names)


def test_the_model_is_as_it_was(made: Made) -> None:
    base = made("mistral", sliding_window=16)
    before = (base.model.config.to_dict(), base.model.config._attn_implementation, base.model.training)
    base.checks(base.bundle())
    assert (base.model.config.to_dict(), base.model.config._attn_implementation, base.model.training) == before
    assert not any(module._forward_pre_hooks for module in base.model.modules())
