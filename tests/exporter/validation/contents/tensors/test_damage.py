"""Every way in which what a graph holds can be wrong is found, and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.exporter.validation.contents.tensors.bases import Change, Made, attribute, replaced

BERT = "bert.embeddings"
LAYER = "bert.encoder.layer.0"
WORDS, POSITIONS = f"{BERT}.word_embeddings.weight", f"{BERT}.position_embeddings.weight"
TYPES, NORM = f"{BERT}.token_type_embeddings.weight", f"{LAYER}.attention.output.LayerNorm.weight"


def _zero(rows: slice) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[rows] = 0

    return change


def _swap(first: Any, second: Any) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[[first, second]] = array[[second, first]]

    return change


def _add(place: Any, by: float) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[place] += np.asarray(by, array.dtype)

    return change


def _mirror(column: int) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[:, column] *= -1

    return change


def _roll(array: np.ndarray) -> np.ndarray:
    return np.roll(array, 1, axis=0)


#: What is changed, how, and what the report says of it.
OF_BERT: dict[str, tuple[str, Callable[[np.ndarray], Any], str]] = {
    "positions zeroed": (POSITIONS, _zero(slice(16, None)), "rows 16 to 39 of 40"),
    "words swapped": (WORDS, _swap(7, 71), "2 of 90 rows (7, 71)"),
    "words moved": (WORDS, _roll, "holds the rows of its source in another order"),
    "a type": (TYPES, _add(1, 0.5), "row 1 of 2"),
    "a column of words": (WORDS, _mirror(3), "column 3 of 24"),
    "a norm nudged": (NORM, _add(5, 1e-3), "number 5 of 24"),
    "a bias moved": (f"{LAYER}.attention.self.key.bias", _add(slice(2, 4), 0.01), "numbers 2 to 3 of 24"),
    "a weight": (f"{LAYER}.attention.self.key.weight", _add((3, 4), 0.01), "row 4 of 24"),
    "the classifier": ("classifier.weight", _add((1, 7), 0.01), "row 1 of 2"),
}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", OF_BERT)
def test_a_tensor_of_an_encoder(made: Made, kind: str, precision: str) -> None:
    name, change, said = OF_BERT[kind]
    base = made("bert")
    held = base.bundle("conditioned", precision)
    graph = ir.load(held.model.absolute()).graph
    stored = name if name in graph.initializers else f"{name}.fp16"
    found = base.damaged(replaced(stored, change), mode="conditioned", precision=precision)
    prefix = "" if said.startswith("holds") else "differs from its source in "
    assert found == {name: f"{prefix}{said}"}


def test_a_folded_bundle_too(made: Made) -> None:
    found = made("bert").damaged(replaced(POSITIONS, _zero(slice(16, None))), mode="static")
    assert found == {POSITIONS: "differs from its source in rows 16 to 39 of 40"}


def test_a_table_that_ends_early(made: Made) -> None:
    found = made("bert").damaged(replaced(POSITIONS, lambda array: array[:20]))
    assert found == {POSITIONS: "holds 20 of its 40 rows"}


def test_a_table_that_is_another(made: Made) -> None:
    found = made("bert").damaged(
        replaced(POSITIONS, lambda array: np.random.default_rng(0).normal(size=array.shape).astype("f4"))
    )
    assert found == {POSITIONS: "no graph of the bundle looks rows up in its numbers, 40 rows of 24"}


def test_a_true_table_that_nothing_reads(made: Made) -> None:
    """The graph looks rows up in a damaged copy."""

    def change(graph: ir.Graph) -> None:
        value = graph.initializers[WORDS]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array[50] += 1
        other = ir.Value(name="other", shape=value.shape, type=value.type, const_value=ir.Tensor(array, name="other"))
        graph.register_initializer(other)
        value.replace_all_uses_with(other)
        dead = ir.node("Gather", [value, graph.inputs[0]])
        dead.outputs[0].name = "dead"
        graph.append(dead)

    assert made("bert").damaged(change) == {WORDS: "differs from its source in row 50 of 90"}


def test_relative_positions(made: Made) -> None:
    name = next(n for n, _ in made("deberta").model.named_parameters() if n.endswith("rel_embeddings.weight"))
    found = made("deberta").damaged(replaced(name, _swap(3, 12)))
    assert found == {name: "differs from its source in 2 of 16 rows (3, 12)"}


def test_a_patch_and_a_position_of_an_image(made: Made) -> None:
    base = made("vit")
    for name, place in (
        ("vit.embeddings.patch_embeddings.projection.weight", (2, 1, 0, 0)),
        ("vit.embeddings.position_embeddings", (0, 3, 2)),
    ):
        assert set(base.damaged(replaced(name, _add(place, 0.1)))) == {name}


QKV = "model.layers.0.attn.qkv_proj.MatMul.weight"


def _swap_key_and_value(array: np.ndarray) -> None:
    array[:, 64:96], array[:, 96:128] = array[:, 96:128].copy(), array[:, 64:96].copy()


def test_blocks_of_a_packed_projection_swapped(made: Made) -> None:
    found = made("llama").damaged(replaced(QKV, _swap_key_and_value))
    said = "is packed in another order than q_proj, k_proj, v_proj"
    assert found == {f"model.layers.0.self_attn.{x}_proj.weight": said for x in "qkv"}


def test_blocks_that_the_base_packs_itself(made: Made) -> None:
    found = made("phi3").damaged(replaced(QKV, _swap_key_and_value))
    assert set(found) == {"model.layers.0.self_attn.qkv_proj.weight"}


def test_a_number_of_one_block(made: Made) -> None:
    found = made("llama").damaged(replaced(QKV, _add((5, 70), 0.1)))
    assert found == {"model.layers.0.self_attn.k_proj.weight": "differs from its source in row 6 of 32"}


@pytest.mark.parametrize("name", ["llama", "gemma", "gemma2"])
def test_one_norm_among_equal_ones(made: Made, name: str) -> None:
    """None of them is trained; Gemma's are held plus one."""
    norm = "model.layers.1.input_layernorm.weight"
    found = made(name).damaged(replaced(norm, _add(9, 1e-3)))
    assert set(found) == {norm}
    assert found[norm].startswith("differs from its source in number 9 of 64")


def _untie(graph: ir.Graph) -> None:
    """The head multiplies by another copy than rows are looked up in."""
    value = graph.initializers["lm_head.MatMul.weight"]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[:, 11] = 0
    other = ir.Value(name="head", shape=value.shape, type=value.type, const_value=ir.Tensor(array, name="head"))
    graph.register_initializer(other)
    for node, index in list(value.uses()):
        if node.op_type == "MatMul":
            node.replace_input_with(index, other)


def test_a_head_untied(made: Made) -> None:
    assert made("llama tied").damaged(_untie) == {"lm_head.weight": "differs from its source in row 11 of 120"}


ROTARY: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "cut": (lambda array: array[:100], "holds 100 of 256 positions"),
    "scaled": (lambda array: array * np.float32(1.001), "differs from the model's cosines at 256 of 256 positions"),
    "one position": (_add(200, 0.01), "differs from the model's cosines at position 200"),
    "narrower": (lambda array: array[:, :4], "is 4 wide, the model's is 8 wide"),
    "not a number": (_add((77, 0), np.nan), "differs from the model's cosines at position 77"),
}


@pytest.mark.parametrize("kind", ROTARY)
def test_a_rotary_table(made: Made, kind: str) -> None:
    change, said = ROTARY[kind]
    found = made("llama").damaged(replaced("cos_cache", change))
    assert list(found) == ["rotary table cos_cache"]
    assert found["rotary table cos_cache"].startswith(said)


def test_rotary_tables_of_another_base(made: Made) -> None:
    one, other = made("llama"), made("llama", rope_parameters={"rope_type": "default", "rope_theta": 10100.0})
    tables = ir.load(other.bundle().model.absolute()).graph.initializers

    def change(graph: ir.Graph) -> None:
        for name in ("cos_cache", "sin_cache"):
            graph.initializers[name].const_value = tables[name].const_value

    assert set(one.damaged(change)) == {"rotary table cos_cache", "rotary table sin_cache"}


ATTENTION: dict[str, tuple[Change, str]] = {
    "window": (attribute(1, "local_window_size", 16), "window is 16, the model's is none"),
    "scale": (attribute(1, "scale", 0.3), "scale is 0.3, the model's is 0.25"),
    "cap": (attribute(1, "softcap", 20.0), "softcap is 20, the model's is 0"),
    "heads": (attribute(1, "kv_num_heads", 4), "kv_num_heads is 4, the model's is 2"),
}


@pytest.mark.parametrize("kind", ATTENTION)
def test_a_layers_attention(made: Made, kind: str) -> None:
    change, said = ATTENTION[kind]
    assert made("llama").damaged(change) == {"attention of layer 1": said}


def test_windows_changed(made: Made) -> None:
    base = made("gemma2", sliding_window=16)
    windowed = next(i for i, kind in enumerate(base.model.config.layer_types) if kind == "sliding_attention")
    found = base.damaged(attribute(windowed, "local_window_size", 15))
    assert found == {f"attention of layer {windowed}": "window is 15, the model's is 16"}
    found = base.damaged(attribute(1 - windowed, "local_window_size", 16))
    assert found == {f"attention of layer {1 - windowed}": "window is 16, the model's is none"}


@pytest.mark.parametrize("name", ["mistral", "phi3"])
def test_windows_left_out(made: Made, name: str) -> None:
    """As GenAI's builder (0.18) does, which reads windows from layer_types: these configurations have none."""
    base = made(name, sliding_window=16)
    for layer in (0, 1):
        found = base.damaged(attribute(layer, "local_window_size", -1))
        assert found == {f"attention of layer {layer}": "window is none, the model's is 16"}


BUCKETS = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def test_tables_of_an_encoder_decoder(made: Made) -> None:
    base = made("t5 gated")
    assert base.damaged(replaced(BUCKETS, _roll)) == {BUCKETS: "holds the rows of its source in another order"}
    encoder = ir.load((base.bundle().path / "encoder.onnx").absolute()).graph
    words = next(name for name in encoder.initializers if name.endswith(("shared.weight", "embed_tokens.weight")))
    found = base.damaged(replaced(words, _swap(100, 101)), "encoder.onnx")
    # the decoder's own copy is as it should be
    assert found == {"encoder.embed_tokens.weight": "differs from its source in rows 100 to 101 of 180"}
