"""Finding modules by name, by content and by map, and refusing whenever there is doubt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import save_file

from eptx.errors import BaseModelError, UsageError
from eptx.exporter.bases import BaseGraph, locate
from tests.exporter.bases.graphs import activation, initializer, model

OTHER_WEIGHTS = "other weights in the base graph than in the base folder; give the graph's own folder: m"
TWICE = "more than once in the base graph, with different weights; name each with --module-map: m"
RNG = np.random.default_rng(5)
IN = 6


def matrix(out: int = 4, inner: int = IN) -> np.ndarray:
    return RNG.normal(size=(out, inner)).astype(np.float32)


def folder(path: Path, weights: dict[str, np.ndarray]) -> Path:
    save_file({f"{name}.weight": np.ascontiguousarray(w) for name, w in weights.items()}, path / "model.safetensors")
    return path


def graph(*nodes: ir.Node, where: Path | None = None, prefix: str = "", **config: Any) -> BaseGraph:
    x = next(v for node in nodes for v in node.inputs if v is not None and v.name == "x")
    return BaseGraph(model=model([x], nodes), folder=where, prefix=prefix, config=config)


X = "x"


def product(x: ir.Value, weight: np.ndarray, name: str = "", label: str = "w") -> ir.Node:
    return ir.node("MatMul", [x, initializer(label, weight.T)], name=name)


@pytest.fixture
def x() -> ir.Value:
    return activation("x", IN)


def test_node_names_of_both_of_pytorchs_exporters(x: ir.Value) -> None:
    nested = product(x, matrix(), "/enc/layer.0/query/MatMul", "onnx::MatMul_7")
    flat = product(x, matrix(), "/enc.layer.1.query/MatMul_1", "val_8")
    sites = locate(graph(nested, flat), ["enc.layer.1.query", "enc.layer.0.query"])
    assert list(sites) == ["enc.layer.1.query", "enc.layer.0.query"]
    assert [site.node for site in sites.values()] == [flat, nested]


def test_initializer_names(x: ir.Value) -> None:
    node = product(x, matrix(), "MatMul_3", "enc.layer.0.query.weight")
    assert locate(graph(node), ["enc.layer.0.query"])["enc.layer.0.query"].node is node


def test_a_nodes_name_counts_before_its_weights(x: ir.Value) -> None:
    weight = initializer("head.weight", matrix().T)  # tied: named after one of its two modules
    head, inner = (
        ir.node("MatMul", [x, weight], name="/head/MatMul"),
        ir.node("MatMul", [x, weight], name="/in/MatMul"),
    )
    sites = locate(graph(head, inner), ["head", "in"])
    assert (sites["head"].node, sites["in"].node) == (head, inner)
    assert not sites["head"].also


@pytest.mark.parametrize(
    ("named", "asked", "prefix"),
    [
        ("bert.enc.q", "enc.q", "bert"),
        ("enc.q", "bert.enc.q", "bert"),
        ("enc.q", "bert.enc.q", ""),
        ("model.enc.q", "enc.q", ""),
    ],
)
def test_prefix_is_added_or_taken_away(x: ir.Value, named: str, asked: str, prefix: str) -> None:
    node = product(x, matrix(), f"/{named}/MatMul")
    assert locate(graph(node, prefix=prefix), [asked])[asked].node is node


def test_another_prefix_is_another_module(x: ir.Value) -> None:
    node = product(x, matrix(), "/text.enc.q/MatMul")
    with pytest.raises(BaseModelError, match=r"1 of 1 adapted modules are not found .*: enc\.q"):
        locate(graph(node, prefix="bert"), ["enc.q"])


@pytest.mark.parametrize("stored_as", [np.float32, np.float64, np.float16])
def test_content_whatever_the_type(x: ir.Value, tmp_path: Path, stored_as: Any) -> None:
    weights = {"old.a": matrix(), "old.b": matrix()}
    nodes = [product(x, w.astype(stored_as), f"/new.{i}/MatMul", f"w{i}") for i, w in enumerate(weights.values())]
    sites = locate(graph(*nodes, where=folder(tmp_path, weights)), ["old.b", "old.a"])
    assert [site.node for site in sites.values()] == nodes[::-1]


def test_content_of_a_packed_projection(x: ir.Value, tmp_path: Path) -> None:
    weights = {"att.q": matrix(4), "att.k": matrix(2), "att.v": matrix(2)}
    packed = product(x, np.concatenate(list(weights.values())))
    sites = locate(graph(packed, where=folder(tmp_path, weights)), list(weights))
    assert [site.columns for site in sites.values()] == [(0, 4), (4, 6), (6, 8)]
    for name, site in sites.items():
        assert site.packed
        assert np.array_equal(site.weight_array(), weights[name])


def test_content_of_a_packed_gemm(tmp_path: Path) -> None:
    x = activation("x", IN, rows=("batch",))
    weights = {"att.q": matrix(4), "att.k": matrix(2)}
    stacked = initializer("w", np.concatenate(list(weights.values())))
    node = ir.node("Gemm", [x, stacked], {"transB": 1})
    sites = locate(graph(node, where=folder(tmp_path, weights)), list(weights))
    assert [(site.columns, site.transposed) for site in sites.values()] == [((0, 4), True), ((4, 6), True)]


@pytest.mark.parametrize("turned", [False, True])
def test_content_of_a_quantized_weight(x: ir.Value, tmp_path: Path, turned: bool) -> None:
    weight = matrix()
    scale = np.abs(weight).max(axis=1) / 127
    whole = np.round(weight / scale[:, None]).astype(np.int8)
    values, axis = (whole, 0) if turned else (whole.T, 1)
    step = ir.node("DequantizeLinear", [initializer("w", values), initializer("s", scale)], {"axis": axis})
    nodes = [step] + ([ir.node("Transpose", [step.outputs[0]], {"perm": [1, 0]})] if turned else [])
    node = ir.node("MatMul", [x, nodes[-1].outputs[0]])
    sites = locate(graph(*nodes, node, where=folder(tmp_path, {"m": weight, "other": matrix()})), ["m"])
    assert sites["m"].node is node


def test_constant_weights_do_not_take_forever(x: ir.Value, tmp_path: Path) -> None:
    zero = np.zeros((4, IN), np.float32)
    packed = product(x, np.zeros((2000, IN), np.float32))
    with pytest.raises(BaseModelError, match="match more than one product"):
        locate(graph(packed, where=folder(tmp_path, {"m": zero})), ["m"])


def test_equal_weights_are_told_apart_by_name(x: ir.Value, tmp_path: Path) -> None:
    weight = matrix()
    nodes = [product(x, weight, f"/m.{name}/MatMul", name) for name in "ab"]
    sites = locate(graph(*nodes, where=folder(tmp_path, {"m.a": weight, "m.b": weight})), ["m.a", "m.b"])
    assert [site.node for site in sites.values()] == nodes


def test_equal_weights_without_names_are_refused(x: ir.Value, tmp_path: Path) -> None:
    weight = matrix()
    nodes = [product(x, weight, "", name) for name in "ab"]
    with pytest.raises(BaseModelError, match=r"2 of 2 adapted modules match more than one product .*: m\.a, m\.b"):
        locate(graph(*nodes, where=folder(tmp_path, {"m.a": weight, "m.b": weight})), ["m.a", "m.b"])


def test_two_modules_that_are_one_product_are_refused(x: ir.Value, tmp_path: Path) -> None:
    weight = matrix()
    node = product(x, weight)
    with pytest.raises(BaseModelError, match=r"m\.a and m\.b are one product"):
        locate(graph(node, where=folder(tmp_path, {"m.a": weight, "m.b": weight})), ["m.a", "m.b"])


def test_a_name_with_other_weights_is_refused(x: ir.Value, tmp_path: Path) -> None:
    node = product(x, matrix(), "/m/MatMul")
    with pytest.raises(BaseModelError, match=OTHER_WEIGHTS):
        locate(graph(node, where=folder(tmp_path, {"m": matrix()})), ["m"])


def test_content_overrules_a_wrong_name(x: ir.Value, tmp_path: Path) -> None:
    weights = {"a": matrix(), "b": matrix()}
    nodes = [product(x, weights["b"], "/a/MatMul", "1"), product(x, weights["a"], "/b/MatMul", "2")]
    sites = locate(graph(*nodes, where=folder(tmp_path, weights)), ["a", "b"])
    assert (sites["a"].node, sites["b"].node) == (nodes[1], nodes[0])


def test_a_module_that_runs_twice(x: ir.Value) -> None:
    weight, positions = initializer("w", matrix().T), initializer("positions", matrix(3))
    fixed = ir.node("MatMul", [positions, weight], name="/m/MatMul")
    real = ir.node("MatMul", [x, weight], name="/m/MatMul_1")
    site = locate(graph(fixed, real), ["m"])["m"]
    assert site.node is real
    assert [(place.node, place.fixed_input) for place in site.also] == [(fixed, True)]


def test_one_name_for_different_weights_is_refused(x: ir.Value) -> None:
    nodes = [product(x, matrix(), "/m/MatMul", "1"), product(x, matrix(), "/m/MatMul_1", "2")]
    with pytest.raises(BaseModelError, match=TWICE):
        locate(graph(*nodes), ["m"])


def test_missing_modules_are_listed(x: ir.Value, tmp_path: Path) -> None:
    node = product(x, matrix(), "/m/MatMul")
    missing = [f"layer.{i}" for i in range(7)]
    with pytest.raises(BaseModelError) as caught:
        locate(graph(node), ["m", *missing])
    assert "7 of 8 adapted modules are not found" in str(caught.value)
    assert "layer.0, layer.1, layer.2, layer.3 and 3 more" in str(caught.value)
    assert "give its transformers folder" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("op_type", "domain", "attributes", "says"),
    [
        ("Gemm", "", {"alpha": 2.0, "transB": 1}, "alpha"),
        ("Gemm", "", {"beta": 0.5, "transB": 1}, "beta"),
        ("Gemm", "", {"transA": 1, "transB": 1}, "transA"),
        ("FusedMatMul", "com.microsoft", {"alpha": 0.5, "transB": 1}, "alpha"),
        ("FusedGemm", "com.microsoft", {"transB": 1}, "fused operator FusedGemm"),
    ],
)
def test_products_of_another_kind_are_refused(op_type: str, domain: str, attributes: Any, says: str) -> None:
    x = activation("x", IN, rows=("batch",))
    node = ir.node(op_type, [x, initializer("w", matrix())], attributes, domain=domain, name=f"/m/{op_type}")
    with pytest.raises(BaseModelError, match=f"cannot be adapted in this graph .*{says}.*: m$"):
        locate(graph(node), ["m"])


def test_a_weight_on_the_left_is_refused(tmp_path: Path) -> None:
    x = activation("x", 3, rows=("batch", IN))
    weight = matrix()
    node = ir.node("MatMul", [initializer("w", weight), x])
    with pytest.raises(BaseModelError, match="the weight is the left operand"):
        locate(graph(node, where=folder(tmp_path, {"m": weight})), ["m"])


def test_map_to_a_node_a_weight_or_columns(x: ir.Value) -> None:
    first, second = product(x, matrix(), "one", "w[1]"), product(x, matrix(8), "two", "w2")
    names = {"a": "one", "b": "w2[0:6]", "c": "two[6:8]"}
    base = graph(first, second)
    sites = locate(base, list("abc"), module_map=names)
    assert [(s.node, s.columns) for s in sites.values()] == [
        (first, (0, 4)),
        (second, (0, 6)),
        (second, (6, 8)),
    ]
    assert locate(base, ["a"], module_map={"a": "w[1]"})["a"].node is first


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nothing", "mapped to no product"),
        ("one[0:9]", "columns that the product does not have"),
        ("one[3:3]", "columns that the product does not have"),
        ("two", "whose weights are not the base folder's"),
    ],
)
def test_a_wrong_map_is_refused(x: ir.Value, tmp_path: Path, target: str, says: str) -> None:
    weight = matrix()
    nodes = [product(x, weight, "one", "w1"), product(x, matrix(), "two", "w2")]
    base = graph(*nodes, where=folder(tmp_path, {"m": weight}))
    with pytest.raises(BaseModelError, match=says):
        locate(base, ["m"], module_map={"m": target})


def test_a_map_of_another_adapter_is_refused(x: ir.Value) -> None:
    node = product(x, matrix(), "/m/MatMul")
    with pytest.raises(UsageError, match="does not adapt: other"):
        locate(graph(node), ["m"], module_map={"other": "w"})


def test_overlapping_maps_are_refused(x: ir.Value) -> None:
    node = product(x, matrix(), "/m/MatMul")
    with pytest.raises(BaseModelError, match="a and b are one product"):
        locate(graph(node), ["a", "b"], module_map={"a": "w[0:3]", "b": "w[2:4]"})


def test_folded_relative_positions_are_refused(x: ir.Value) -> None:
    node = product(x, matrix(), "/self.key_proj/MatMul")
    config = {"model_type": "deberta-v2", "share_att_key": True, "relative_attention": True}
    base = graph(node, **config, pos_att_type=["c2p"])
    with pytest.raises(BaseModelError, match="relative positions, which this graph has folded away"):
        locate(base, ["self.key_proj"])
    base.config["pos_att_type"] = ["p2c"]
    assert locate(base, ["self.key_proj"])


def test_renamed_modules_with_equal_weights_are_told_apart(tiny: Any, tmp_path: Path) -> None:
    """An adapter of transformers 4, a graph of transformers 5, and content that does not decide."""
    from safetensors.numpy import load_file

    names = {"query": "q_proj", "key": "k_proj"}
    old, new = "vit.encoder.layer.0.attention.attention", "vit.layers.0.attention"
    tensors = load_file(tiny.folder("vit") / "model.safetensors")
    tensors[f"{old}.key.weight"] = tensors[f"{old}.query.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((tiny.folder("vit") / "config.json").read_bytes())
    x = activation("x", 24)
    nodes = [product(x, tensors[f"{old}.{was}.weight"], f"/{new}.{now}/MatMul", was) for was, now in names.items()]
    sites = locate(graph(*nodes, where=tmp_path, prefix="vit"), [f"{old}.{was}" for was in names])
    assert [site.node for site in sites.values()] == nodes
