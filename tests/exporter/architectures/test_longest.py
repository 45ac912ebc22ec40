"""How long a text a base reads: the longest row runs as in transformers, whatever its positions start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import transformers as tf

from eptx.calibration import export_bundle
from eptx.errors import RequestError
from eptx.exporter import ExportOptions
from eptx.exporter.bases import BaseGraph, load_onnx, load_transformers
from eptx.exporter.bases.max_length import longest
from eptx.exporter.quiet import quiet
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.run import validate_bundle
from eptx.runtime import Session
from tests.exporter.validation.adapters import linear_shapes, write_lora

_ROWS = 40
_ONE = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": _ROWS,
}
_PAD = _ONE | {"pad_token_id": 1}
_DISTIL = {"vocab_size": 90, "dim": 24, "n_layers": 1, "n_heads": 2, "hidden_dim": 40, "max_position_embeddings": _ROWS}
_RELATIVE = {
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_MODERN = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
#: name -> (configuration, model class, how many tokens its table of positions has rows for; None: it has none)
MODELS: dict[str, tuple[Any, Any, int | None]] = {
    "bert": (tf.BertConfig(**_ONE), tf.BertModel, _ROWS),
    "albert": (tf.AlbertConfig(**_ONE, embedding_size=16), tf.AlbertModel, _ROWS),
    "electra": (tf.ElectraConfig(**_ONE, embedding_size=16), tf.ElectraModel, _ROWS),
    "distilbert": (tf.DistilBertConfig(**_DISTIL), tf.DistilBertModel, _ROWS),
    "big_bird": (tf.BigBirdConfig(**_ONE, attention_type="original_full"), tf.BigBirdModel, _ROWS),
    "roberta": (tf.RobertaConfig(**_PAD), tf.RobertaModel, _ROWS - 2),
    "roberta, padding 5": (tf.RobertaConfig(**_ONE | {"pad_token_id": 5}), tf.RobertaModel, _ROWS - 6),
    "xlm-roberta": (tf.XLMRobertaConfig(**_PAD), tf.XLMRobertaModel, _ROWS - 2),
    "camembert": (tf.CamembertConfig(**_PAD), tf.CamembertModel, _ROWS - 2),
    "data2vec": (tf.Data2VecTextConfig(**_PAD), tf.Data2VecTextModel, _ROWS - 2),
    "mpnet": (tf.MPNetConfig(**_PAD), tf.MPNetModel, _ROWS - 2),
    "esm": (
        tf.EsmConfig(**_PAD, mask_token_id=3, position_embedding_type="absolute", token_dropout=False),
        tf.EsmModel,
        _ROWS - 2,
    ),
    "roformer": (tf.RoFormerConfig(**_ONE, embedding_size=24), tf.RoFormerModel, _ROWS),
    "deberta, relative": (tf.DebertaV2Config(**_ONE, **_RELATIVE), tf.DebertaV2Model, None),
    "deberta, absolute": (tf.DebertaV2Config(**_ONE, type_vocab_size=0), tf.DebertaV2Model, _ROWS),
    "modernbert": (tf.ModernBertConfig(**_ONE | _MODERN, global_attn_every_n_layers=1), tf.ModernBertModel, None),
}


def _write(name: str, folder: Path) -> Any:
    torch.manual_seed(3)
    config, model_class, _ = MODELS[name]
    model = model_class(config).eval()
    with quiet():
        model.save_pretrained(folder)
    return model


def _row(length: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(1).integers(10, 90, (1, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.mark.parametrize("name", MODELS)
def test_the_longest_row_is_transformers(tmp_path: Path, name: str) -> None:
    model, rows = _write(name, tmp_path / "base"), MODELS[name][2]
    graph = load_transformers(tmp_path / "base")
    found = longest(graph)
    assert found == (_ROWS if rows is None else rows)
    ir.save(graph.model, tmp_path / "base.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "base.onnx", providers=["CPUExecutionProvider"])
    assert found is not None
    inputs = _row(found)
    feeds = {value.name: inputs.get(value.name, np.zeros((1, found), np.int64)) for value in session.get_inputs()}
    with torch.no_grad():
        wanted = model(**{key: torch.from_numpy(value) for key, value in inputs.items()})[0].numpy()
    np.testing.assert_allclose(session.run(None, feeds)[0], wanted, atol=2e-5)
    if rows is not None:
        with pytest.raises((IndexError, RuntimeError)), torch.no_grad():
            model(**{key: torch.from_numpy(value) for key, value in _row(found + 1).items()})
    assert longest(load_onnx(tmp_path / "base.onnx", folder=tmp_path / "base")) == found
    alone = tmp_path / "alone" / "base.onnx"
    alone.parent.mkdir()
    (tmp_path / "base.onnx").rename(alone)
    assert longest(load_onnx(alone)) == rows  # nothing else says it there


def test_a_bundle_takes_its_longest_row_and_no_longer(tmp_path: Path) -> None:
    """The issue's case: MPNet's positions start behind the padding."""
    base = tmp_path / "base"
    _write("mpnet", base)
    adapter = write_lora(tmp_path / "lora", linear_shapes(base, ("attn.q", "attn.v")), seed=2)
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="conditioned"))
    assert bundle.manifest.max_length == _ROWS - 2
    session = Session(bundle)
    session.run(_row(_ROWS - 2), "task0")
    with pytest.raises(RequestError, match="at most 38"):
        session.run(_row(_ROWS - 1), "task0")
    assert validate_bundle(bundle.path, ValidateOptions(base=base, adapters=[adapter])).passed


def test_a_base_that_reads_no_tokens_has_no_longest_text() -> None:
    model = ir.Model(ir.Graph([ir.val("pixel_values")], [], nodes=[], opset_imports={"": 18}), ir_version=10)
    assert longest(BaseGraph(model, config={"max_position_embeddings": 9})) is None
