"""How far a base reads: transformers' own figures, and never the bundle's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from eptx.exporter.validation.base.lookups import lookups
from eptx.exporter.validation.base.windows import farthest_relative, windows

TINY = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 24,
}  # fmt: skip
OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet", "esm", "data2vec-text", "xmod", "roberta-prelayernorm")


def runs(model: Any, length: int) -> bool:
    ids = torch.full((1, length), 5)
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("kind", [*OFFSET, "bert", "electra", "distilbert", "albert", "nystromformer", "convbert"])
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_it_is_the_longest_row_that_the_model_runs(kind: str, pad: int) -> None:
    """Asked of PyTorch: one more token and the table of positions is left."""
    config = {"model_type": kind, "pad_token_id": pad} | TINY | {"embedding_size": 16, "dim": 16, "n_layers": 1}
    config |= {"n_heads": 2, "hidden_dim": 16, "languages": ["en"], "position_embedding_type": "absolute"}
    model = AutoModel.from_config(AutoConfig.for_model(**config)).eval()
    if kind == "xmod":
        model.set_default_language("en")
    longest = lookups(model).longest
    assert longest is not None
    assert runs(model, longest)
    if kind != "nystromformer":  # whose segments want certain lengths
        assert not runs(model, longest + 1)


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "deberta-v2", "position_biased_input": False, "max_position_embeddings": 40}, 40),
        ({"model_type": "gpt2", "max_position_embeddings": 77, "n_layer": 1, "n_embd": 16, "n_head": 2}, 77),
        ({"model_type": "llama", "max_position_embeddings": 8192}, 8192),
        ({"model_type": "t5", "n_positions": 512, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1}, None),
        ({"model_type": "vit", "image_size": 8, "patch_size": 4}, None),
    ],
)
def test_what_has_no_table_is_told_by_its_configuration(config: dict[str, Any], longest: int | None) -> None:
    model = AutoModel.from_config(AutoConfig.for_model(**(TINY | {"num_heads": 2} | config)))
    if config["model_type"] in ("t5", "vit"):
        assert getattr(model.config, "max_position_embeddings", None) in (None, 24)
        model.config.max_position_embeddings = None
    assert lookups(model).longest == longest


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"model_type": "llama"}, ()),
        ({"model_type": "mistral", "sliding_window": 32}, (32,)),
        ({"model_type": "mistral", "sliding_window": None}, ()),
        ({"model_type": "qwen2", "sliding_window": 128, "use_sliding_window": False}, ()),
        ({"model_type": "qwen2", "sliding_window": 128, "use_sliding_window": True, "max_window_layers": 1}, (128,)),
        ({"model_type": "gemma2", "sliding_window": 64}, (64,)),
        ({"model_type": "gemma3"}, (4096,)),  # the text's, of a model of several
        ({"model_type": "gpt_neo"}, (256,)),
        ({"model_type": "longformer", "attention_window": [32, 64], "num_hidden_layers": 2}, (32, 64)),
    ],
)
def test_windows(config: dict[str, Any], found: tuple[int, ...]) -> None:
    assert windows(config) == found


def test_relative_positions() -> None:
    assert farthest_relative({"model_type": "t5"}) == 128
    assert farthest_relative({"model_type": "mt5", "relative_attention_max_distance": 16}) == 16
    assert farthest_relative({"model_type": "bert"}) is None
