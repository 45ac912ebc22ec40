"""What tasks change of tensors: embeddings, rows of tokens, vocabularies, convolutions.

Each bundle gives what PEFT's own model gives; validation passes, and fails on a wrong row or entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import peft
import pytest

from eptx.bundle import read_bundle
from eptx.errors import AdapterError
from eptx.exporter.validation import validate_bundle
from tests.exporter.validation.workshop import Workshop
from tests.matrix.cell import MODES, Mode, run
from tests.matrix.made import Made, make
from tests.matrix.row import Row, sound, texts

_LLAMA: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 36,
    "max_position_embeddings": 40,
}
_PROJECTIONS = ["q_proj", "v_proj", "o_proj"]


def _row(*, tied: bool, tokens: tuple[int, ...] = ()) -> Row:
    config = ("LlamaConfig", {**_LLAMA, "tie_word_embeddings": tied})
    return Row("Llama", "decoders", "LlamaForCausalLM", config, texts(60), kind="decoder", tokens=tokens)


def _lora(*own: Mapping[str, Any]) -> Callable[[Row, Any, int], Any]:
    """Each adapter's settings, the last for all after it."""

    def of(row: Row, model: Any, index: int) -> Any:
        values = {"r": (4, 2, 8)[index], "target_modules": _PROJECTIONS, "task_type": "CAUSAL_LM"}
        return peft.LoraConfig(**{**values, **own[min(index, len(own) - 1)]})

    return of


_EMBEDDINGS = {"target_modules": [*_PROJECTIONS, "embed_tokens"]}
_KINDS = {
    "embeddings": (_EMBEDDINGS, {"target_modules": _PROJECTIONS}),
    "DoRA on embeddings": ({**_EMBEDDINGS, "use_dora": True},),
    "tokens": ({"trainable_token_indices": list(range(5, 20))}, {"trainable_token_indices": list(range(15, 40))}, {}),
    "saved": ({"modules_to_save": ["embed_tokens"]}, {"modules_to_save": ["lm_head"]}, {}),
}
_RESIZED = {
    "resized": ({},),
    "resized and saved": ({"modules_to_save": ["embed_tokens", "lm_head"]},),
    "resized and tokens": ({"trainable_token_indices": [60, 61, 5, 6]}, {"trainable_token_indices": [60, 64]}, {}),
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", [*_KINDS, *_RESIZED])
def test_peft_gives_the_same(kind: str, tied: bool, tmp_path: Path) -> None:
    row = _row(tied=tied, tokens=(3, 5) if kind in _RESIZED else ())
    made = make(row, _lora(*(_KINDS | _RESIZED)[kind]), tmp_path / "made")
    for mode in MODES:
        outcome = run(row, made, mode, tmp_path / mode)
        assert outcome.right, f"{mode}: {outcome.refusal or outcome.distance}"
    report = validate_bundle(tmp_path / "conditioned")
    assert report.passed, [check for check in report.checks if check.wrong]


def test_factors_of_a_tied_table_keep_the_resized_copy(tmp_path: Path) -> None:
    row = _row(tied=True, tokens=(3,))
    made = make(row, _lora(_EMBEDDINGS), tmp_path / "made")
    assert run(row, made, "conditioned", tmp_path / "bundle").right


@pytest.mark.parametrize("mode", MODES)
def test_a_vocabulary_that_the_head_does_not_have_is_refused(mode: Mode, tmp_path: Path) -> None:
    row = _row(tied=False, tokens=(3, 3, 3))
    made = make(row, _lora(_EMBEDDINGS), tmp_path / "made")
    outcome = run(row, made, mode, tmp_path / mode)
    task = "task1" if mode == "static" else "task0"
    assert outcome.refusal == (
        f"task {task!r}: model.embed_tokens.weight has 63 tokens and lm_head.weight has 60: train the adapter again "
        "with both in modules_to_save, and save it"
    )
    assert outcome.code == AdapterError.exit_code


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    """Tasks with vocabularies, and a task with factors of its embeddings."""
    folder = tmp_path_factory.mktemp("resized")
    row = _row(tied=True, tokens=(3, 5))
    made = make(row, _lora(*_RESIZED["resized and tokens"][:2], _EMBEDDINGS), folder / "made")
    assert run(row, made, "conditioned", folder / "bundle").right
    return made, folder / "bundle"


@pytest.mark.parametrize(
    ("name", "index"),
    [("model.embed_tokens.weight.rows", 7), ("model.embed_tokens.weight.left", 31), ("lm_head.weight.own.bank", 1)],
)
def test_a_wrong_entry_fails(name: str, index: int, resized: tuple[Made, Path], tmp_path: Path) -> None:
    made, bundle = resized
    workshop = Workshop(made.base, tmp_path)

    def change(graph: ir.Graph) -> None:
        value = graph.initializers[name]
        assert value.const_value is not None
        array = np.array(value.const_value.numpy())
        array[index] += 0.25
        value.const_value = ir.Tensor(array, name=name)

    assert validate_bundle(bundle).passed
    assert not validate_bundle(workshop.edited(read_bundle(bundle), change).path).passed


def test_a_token_that_a_task_lacks_fails_where_it_may_win(resized: tuple[Made, Path], tmp_path: Path) -> None:
    made, bundle = resized

    def change(graph: ir.Graph) -> None:
        value = graph.initializers["rows.lowest"]
        value.const_value = ir.Tensor(np.array(0.0, np.float32), name="rows.lowest")

    mutant = Workshop(made.base, tmp_path).edited(read_bundle(bundle), change)
    assert not validate_bundle(mutant.path).passed


def test_a_bank_of_rows_is_no_larger_than_what_files_hold(tmp_path: Path) -> None:
    config = ("LlamaConfig", {**_LLAMA, "vocab_size": 4000, "tie_word_embeddings": True})
    row = replace(_row(tied=True), config=config, inputs=texts(60))
    made = make(row, _lora(*_KINDS["tokens"][:2], _EMBEDDINGS), tmp_path / "made")
    assert run(row, made, "conditioned", tmp_path / "bundle").right
    own = [(folder / "adapter_model.safetensors").stat().st_size for folder in made.adapters]
    base = (made.base / "model.safetensors").stat().st_size
    stored = sum(path.stat().st_size for path in (tmp_path / "bundle").glob("model.onnx*"))
    assert stored <= 1.1 * (base + sum(own)) + 200_000  # the graph and its rotary tables


_WAVE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "conv_dim": [8, 8],
    "conv_kernel": [5, 3],
    "conv_stride": [3, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 12,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "initializer_range": 0.2,
}


def test_convolutions_of_sound(tmp_path: Path) -> None:
    """The layers that wav2vec 2 reads a recording with; tasks differ in DoRA, biases and layers."""
    config = ("Wav2Vec2Config", _WAVE)
    row = Row("wav2vec 2", "audio", "Wav2Vec2ForSequenceClassification", config, sound(300))
    layers = ["conv_layers.0.conv", "conv_layers.1.conv", "q_proj"]
    own = ({"use_dora": True}, {"lora_bias": True}, {"target_modules": layers[1:2]})

    def lora(row: Row, model: Any, index: int) -> Any:
        return peft.LoraConfig(**{"r": (4, 2, 8)[index], "target_modules": layers, **own[index]})

    made = make(row, lora, tmp_path / "made")
    for mode in MODES:
        outcome = run(row, made, mode, tmp_path / mode)
        assert outcome.right, (mode, outcome)
