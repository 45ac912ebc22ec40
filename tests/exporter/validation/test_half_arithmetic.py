"""What the reference rounds by in float16 is what PyTorch's own float16 rounds by."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from eptx.exporter.quiet import quiet
from eptx.exporter.validation.reference.half import HalfArithmetic, round_to_half

_SIZES = {"vocab_size": 90, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
MODELS = {
    "BertModel": transformers.BertConfig(**_SIZES, intermediate_size=96),
    "LlamaModel": transformers.LlamaConfig(**_SIZES, intermediate_size=96, num_key_value_heads=2),
    "DebertaV2Model": transformers.DebertaV2Config(
        **_SIZES, intermediate_size=96, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8
    ),
}


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


@pytest.mark.parametrize("name", MODELS)
def test_the_noise_is_that_of_a_float16_model(name: str) -> None:
    torch.manual_seed(0)
    with quiet():
        model: Any = getattr(transformers, name)(MODELS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    mask = torch.ones(3, 20, dtype=torch.int64)
    mask[1, 12:] = 0
    inputs = {"input_ids": torch.randint(0, 90, (3, 20)), "attention_mask": mask}
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(**inputs).last_hidden_state
        own = copy.deepcopy(model).half()(**inputs).last_hidden_state
        with HalfArithmetic([], model.buffers()):
            rounded = model(**inputs).last_hidden_state
        plain = model(**inputs).last_hidden_state
    kept = mask.bool()
    found, real = _rms((rounded - exact)[kept]), _rms((own - exact)[kept])
    assert 0.5 * real < found < 2 * real
    assert _rms((plain - exact)[kept]) < 0.01 * real


def test_positions_and_routers_are_not_rounded() -> None:
    gate, weight = nn.Parameter(torch.randn(5, 64)), nn.Parameter(torch.randn(32, 64))
    x = round_to_half(torch.randn(7, 64))
    with torch.no_grad(), HalfArithmetic([gate], []):
        scores = torch.softmax(x @ gate.T, -1)
        angles = torch.arange(3000) * 0.37
        y = x @ weight.T
        mixed = scores[:, :1] * y
        y.add_(0.123456)
    assert torch.equal(scores, torch.softmax(x @ gate.T, -1))
    assert torch.equal(angles, torch.arange(3000) * 0.37)
    for values in (y, mixed):
        assert torch.equal(values, round_to_half(values))


def test_what_float16_does_not_hold() -> None:
    values = torch.tensor([torch.finfo(torch.float32).min, 1e9, torch.inf, -torch.inf, 1.0 + 2**-12])
    assert round_to_half(values).tolist() == [-65504.0, 65504.0, torch.inf, -torch.inf, 1.0]
