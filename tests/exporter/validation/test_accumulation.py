"""The noise of a long chain: as large as one is, wherever a model multiplies, and never small by chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from eptx.exporter.validation.reference.accumulation import ROUNDING, SHARE, add_accumulation_noise

ROWS, OUT = 64, 48


def rms(values: Any) -> float:
    return float(np.sqrt(np.square(np.asarray(values, np.float64)).mean()))


def drawn(terms: int, spike: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows and a weight [terms, OUT], float32; one number of every row is larger than the others."""
    rng = np.random.default_rng(terms)
    x, w = rng.normal(size=(ROWS, terms)), rng.normal(size=(terms, OUT))
    x[:, terms // 2] *= spike
    return x.astype(np.float32), w.astype(np.float32)


def expected(x: np.ndarray, w: np.ndarray) -> float:
    """What one chain of all terms rounds by, root mean square."""
    squares = np.square(x, dtype=np.float64) @ np.square(w, dtype=np.float64)
    sums = x.astype(np.float64) @ w.astype(np.float64)
    return rms(ROUNDING * np.sqrt(len(w) / 2 * np.maximum(squares, np.square(sums))))


def noise_of(layer: nn.Module, x: Tensor) -> np.ndarray:
    """What the hooks add to a layer's output."""
    with torch.no_grad():
        plain = layer(x)
        add_accumulation_noise(layer)
        return np.asarray(layer(x) - plain)


def linear(w: np.ndarray, bias: float = 0.0) -> nn.Linear:
    layer = nn.Linear(len(w), w.shape[1])
    layer.load_state_dict({"weight": torch.from_numpy(w.T.copy()), "bias": torch.full((w.shape[1],), bias)})
    return layer


@pytest.mark.parametrize("terms", [64, 384, 1536])
def test_one_chain_of_numbers_rounds_as_is_said(terms: int) -> None:
    x, w = drawn(terms)
    chain = np.cumsum(x[:, :, None] * w[None], axis=1, dtype=np.float32)[:, -1]
    products = (x[:, :, None] * w[None]).astype(np.float64).sum(1)
    assert 0.6 < rms(chain - products) / expected(x, w) < 1.2


@pytest.mark.parametrize("spike", [1.0, 300.0])
@pytest.mark.parametrize("terms", [64, 384, 1536])
def test_no_product_of_onnx_runtime_rounds_by_more(terms: int, spike: float) -> None:
    x, w = drawn(terms, spike)
    error = _multiplied(x, w) - x.astype(np.float64) @ w.astype(np.float64)
    assert rms(error) < 1.2 * expected(x, w)


def _multiplied(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    given = ir.Value(name="x", shape=ir.Shape(x.shape), type=ir.TensorType(ir.DataType.FLOAT))
    weight = ir.Value(name="w", const_value=ir.tensor(w, name="w"), type=ir.TensorType(ir.DataType.FLOAT))
    weight.shape = ir.Shape(w.shape)
    node = ir.node("MatMul", [given, weight])
    (result,) = node.outputs
    result.name, result.type, result.shape = "y", given.type, ir.Shape((len(x), w.shape[1]))
    graph = ir.Graph([given], [result], nodes=[node], initializers=[weight], opset_imports={"": 21})
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    return np.asarray(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0])


@pytest.mark.parametrize("spike", [1.0, 300.0])
@pytest.mark.parametrize("terms", [64, 1536])
def test_a_product_gets_its_share(terms: int, spike: float) -> None:
    x, w = drawn(terms, spike)
    assert rms(noise_of(linear(w), torch.from_numpy(x))) / (SHARE * expected(x, w)) == pytest.approx(1.0, rel=0.35)


def test_a_bias_is_not_added_up() -> None:
    x, w = drawn(64)
    with_bias = noise_of(linear(w, bias=100.0), torch.from_numpy(x))
    assert rms(with_bias) < 30 * rms(noise_of(linear(w), torch.from_numpy(x)))  # of 100, the rounding of the sum


def test_a_column_that_is_large_rounds_by_more() -> None:
    x, w = drawn(384)
    w[:, 7] *= 100
    columns = np.square(noise_of(linear(w), torch.from_numpy(x)), dtype=np.float64).mean(0)
    assert np.sqrt(columns[7] / np.median(columns)) == pytest.approx(100, rel=0.4)


def test_gpt2s_linear_layer_is_a_product() -> None:
    x, w = drawn(384)
    layer = Conv1D(OUT, 384)
    layer.load_state_dict({"weight": torch.from_numpy(w), "bias": torch.zeros(OUT)})
    noise = noise_of(layer, torch.from_numpy(x))
    assert rms(noise) / (SHARE * expected(x, w)) == pytest.approx(1.0, rel=0.35)


def test_a_convolution_is_a_product() -> None:
    layer = nn.Conv2d(3, OUT, 16, 16)
    pixels = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    size = rms(layer(pixels).detach())
    assert rms(noise_of(layer, pixels)) / size == pytest.approx(SHARE * ROUNDING * np.sqrt(768 / 2), rel=0.5)


class _Adapted(nn.Module):
    """A linear layer whose output, or input, is updated."""

    def __init__(self, base: nn.Linear, scale: float, *, on_input: bool) -> None:
        super().__init__()
        self.base_layer, self.scale, self.on_input = base, scale, on_input

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor
        if self.on_input:
            y = self.base_layer(x + self.scale * x.flip(-1))
        else:
            y = self.base_layer(x) + self.scale * x[:, : self.base_layer.out_features]
        return y


@pytest.mark.parametrize("on_input", [False, True])
def test_a_large_update_rounds_as_what_it_is(on_input: bool) -> None:
    x, w = drawn(384)
    layer = _Adapted(linear(w), 1e6, on_input=on_input)
    with torch.no_grad():
        size = rms(layer(torch.from_numpy(x)))
    noise = rms(noise_of(layer, torch.from_numpy(x))) / size
    assert SHARE * ROUNDING * np.sqrt(384 / 2) * 0.9 < noise < 4 * SHARE * ROUNDING * np.sqrt(384 / 2)


@pytest.mark.parametrize("on_input", [False, True])
def test_an_update_of_nothing_adds_nothing(on_input: bool) -> None:
    x, w = drawn(384)
    adapted = noise_of(_Adapted(linear(w), 0.0, on_input=on_input), torch.from_numpy(x))
    assert rms(adapted) < 2 * rms(noise_of(linear(w), torch.from_numpy(x)))


def test_the_noise_is_the_same_in_every_validation_and_other_in_its_second_run() -> None:
    x, w = drawn(64)
    first, second = linear(w), linear(w)
    one, other = noise_of(first, torch.from_numpy(x)), noise_of(second, torch.from_numpy(x))
    assert np.array_equal(one, other)
    with torch.no_grad():
        again = np.asarray(first(torch.from_numpy(x))) - x @ w
    assert abs(np.corrcoef(one.ravel(), again.ravel())[0, 1]) < 0.5
