"""Reading and replacing one module's weight, however the graph stores it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter.bases import Site
from tests.exporter.bases.graphs import activation, initializer, model, run

RNG = np.random.default_rng(3)
IN, OUT = 5, 4
W = RNG.normal(size=(OUT, IN)).astype(np.float32)
NEW = RNG.normal(size=(OUT, IN)).astype(np.float32)
X = RNG.normal(size=(2, 3, IN)).astype(np.float32)


def stored(how: str) -> tuple[ir.Model, Site]:
    """One module, its weight stored in one of the ways that exporters use."""
    x = activation("x", IN)
    nodes: list[ir.Node] = []
    columns = (0, OUT)
    attributes: dict[str, int] = {}
    op_type, domain = "MatMul", ""
    if how == "MatMul":
        weight = initializer("w", W.T)
    elif how == "Transpose":
        nodes.append(ir.node("Transpose", [initializer("w", W)], {"perm": [1, 0]}))
        weight = nodes[0].outputs[0]
    elif how == "Gemm":
        x = activation("x", IN, rows=("batch",))
        weight, op_type, attributes = initializer("w", W), "Gemm", {"transB": 1}
    elif how == "FusedMatMul":
        weight, op_type, attributes, domain = (
            initializer("w", W),
            "FusedMatMul",
            {"transB": 1},
            "com.microsoft",
        )
    elif how == "float16":
        nodes.append(ir.node("Cast", [initializer("w", W.T.astype(np.float16))], {"to": 1}))
        weight = nodes[0].outputs[0]
    else:
        others = RNG.normal(size=(2, IN)).astype(np.float32)
        weight, columns = initializer("w", np.concatenate([others, W, others]).T), (2, 2 + OUT)
    product = ir.node(op_type, [x, weight], attributes, domain=domain)
    return model([x], [*nodes, product]), Site("m", product, columns)


WAYS = ["MatMul", "Transpose", "Gemm", "FusedMatMul", "float16", "packed"]


@pytest.mark.parametrize("how", WAYS)
def test_weight_is_read_and_replaced(how: str) -> None:
    graph, site = stored(how)
    x = X[0] if how == "Gemm" else X
    exact = 0 if how != "float16" else 2e-3
    assert (site.in_features, site.out_features, site.packed) == (IN, OUT, how == "packed")
    assert np.abs(site.weight_array() - W).max() <= exact
    before = run(graph, {"x": x})[0]
    site.set_weight(NEW)
    assert np.abs(site.weight_array() - NEW).max() <= exact
    after = run(graph, {"x": x})[0]
    start, stop = site.columns
    np.testing.assert_allclose(after[..., start:stop], x @ NEW.T, atol=1e-5 if not exact else 1e-2)
    np.testing.assert_array_equal(after[..., :start], before[..., :start])
    np.testing.assert_array_equal(after[..., stop:], before[..., stop:])


@pytest.mark.parametrize("form", ["plain", "Transpose"])
def test_a_weight_that_others_read_is_copied_first(form: str) -> None:
    x, weight = activation("x", IN), initializer("w", W.T if form == "plain" else W)
    nodes = [ir.node("Transpose", [weight], {"perm": [1, 0]})] if form == "Transpose" else []
    operand = nodes[0].outputs[0] if nodes else weight
    mine, other = ir.node("MatMul", [x, operand]), ir.node("MatMul", [x, operand])
    graph = model([x], [*nodes, mine, other])
    site = Site("m", mine, (0, OUT))
    site.set_weight(NEW)
    assert site.weight is not weight
    assert np.array_equal(site.weight_array(), NEW)
    changed, kept = run(graph, {"x": X})
    np.testing.assert_allclose(changed, X @ NEW.T, atol=1e-5)
    np.testing.assert_allclose(kept, X @ W.T, atol=1e-5)


def test_further_products_of_the_module_change_with_it() -> None:
    x, weight = activation("x", IN), initializer("w", W.T)
    fixed = initializer("positions", X[0])
    first, shared = ir.node("MatMul", [x, weight]), ir.node("MatMul", [fixed, weight])
    apart = ir.node("MatMul", [x, initializer("w2", W.T)])
    graph = model([x], [first, shared, apart])
    also = (Site("m", shared, (0, OUT)), Site("m", apart, (0, OUT)))
    site = Site("m", first, (0, OUT), also)
    site.set_weight(NEW)
    assert site.weight is weight  # nobody else reads it: no copy
    for got, x_used in zip(run(graph, {"x": X}), (X, X[0], X), strict=True):
        np.testing.assert_allclose(got, x_used @ NEW.T, atol=1e-5)
    assert [place.fixed_input for place in (site, *also)] == [False, True, False]


def test_a_weight_of_another_shape_is_refused() -> None:
    _, site = stored("MatMul")
    with pytest.raises(BaseModelError, match=r"m: the base graph's weight is \[4, 5\], not \[5, 4\]"):
        site.set_weight(NEW.T)


def test_a_quantized_weight_is_refused() -> None:
    x = activation("x", IN)
    scale = initializer("scale", np.array(0.1, np.float32))
    step = ir.node("DequantizeLinear", [initializer("w", W.T.astype(np.int8)), scale])
    product = ir.node("MatMul", [x, step.outputs[0]])
    model([x], [step, product])
    with pytest.raises(NotSupportedError, match="quantized"):
        Site("m", product, (0, OUT)).weight_array()


def test_a_weight_that_float16_cannot_hold_is_refused() -> None:
    _, site = stored("float16")
    with pytest.raises(NotSupportedError, match="does not fit float16"):
        site.set_weight(NEW * 1e6)


def test_bias_is_part_of_a_gemm() -> None:
    x = activation("x", IN, rows=("batch",))
    product = ir.node("Gemm", [x, initializer("w", W), initializer("b", W[:, 0])], {"transB": 1})
    model([x], [product])
    assert Site("m", product, (0, OUT)).includes_bias
    assert not stored("Gemm")[1].includes_bias


def integers(shared: bool) -> tuple[ir.Model, list[Site]]:
    """Two products of uint8 weights with zero points, of one activation; as ONNX Runtime's quantizer writes them."""
    x = activation("x", IN)
    nodes: list[ir.Node] = []
    sites: list[Site] = []
    outputs: list[ir.Value] = []
    for name in ("a", "b"):
        if not nodes or not shared:
            quantize = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{name}/quantize")
            nodes.append(quantize)
        q, scale, zero = quantize.outputs
        weight = initializer(f"{name}.w", (np.arange(IN * OUT).reshape(IN, OUT) + ord(name)).astype(np.uint8))
        zeros = initializer(f"{name}.zero", np.array([100, 101, 102, 103], np.uint8))
        product = ir.node("MatMulInteger", [q, weight, zero, zeros], name=f"{name}/integers")
        cast = ir.node("Cast", product.outputs, {"to": 1})
        scales = ir.node("Mul", [scale, initializer(f"{name}.scale", np.array([0.1, 0.2, 0.3, 0.4], np.float32))])
        last = ir.node("Mul", [cast.outputs[0], scales.outputs[0]], name=f"/{name}/MatMul")
        nodes += [product, cast, scales, last]
        outputs.append(last.outputs[0])
        sites.append(Site(name, last, (0, OUT)))
    both = ir.node("Concat", outputs, {"axis": -1})
    return model([x], [*nodes, both]), sites


@pytest.mark.parametrize("shared", [True, False])
def test_a_product_of_integers(shared: bool) -> None:
    graph, (first, second) = integers(shared)
    assert (first.x.name, first.in_features, first.out_features, first.packed) == ("x", IN, OUT, False)
    assert (first.quantized, first.includes_bias) == (True, False)
    weights = np.concatenate([first.weight_array(), second.weight_array()])
    np.testing.assert_allclose(first.weight_array()[1, 2], 0.2 * (2 * OUT + 1 + ord("a") - 101), rtol=1e-6)
    step = 2.5 * np.abs(X).max() / 255 * np.abs(weights).sum(1).max()
    np.testing.assert_allclose(run(graph, {"x": X})[0], X @ weights.T, atol=step)
    with pytest.raises(NotSupportedError, match="is quantized in the base graph"):
        first.set_weight(NEW)
    negated = ir.node("Neg", [first.x])
    graph.graph.insert_before(graph.graph[0], negated)
    first.feed(negated.outputs[0])
    assert first.x is negated.outputs[0]
    turned = np.concatenate([-first.weight_array(), second.weight_array()])
    np.testing.assert_allclose(run(graph, {"x": X})[0], X @ turned.T, atol=step)
