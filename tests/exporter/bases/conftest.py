"""Tiny random models of every supported architecture, as transformers folders and as base graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from eptx.exporter.bases import BaseGraph, load_transformers
from eptx.exporter.quiet import quiet

_TEXT = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
}
_ONE = {"num_hidden_layers": 1}  # a trace takes seconds per layer
_DEBERTA = (
    _TEXT
    | _ONE
    | {
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "max_relative_positions": -1,
    }
)
_VIT = {k: _TEXT[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
_CONV = {"conv_kernel_size": 3, "conv_act": "gelu"}

#: name -> (configuration class, its values, model class)
MODELS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "bert": (tf.BertConfig, _TEXT, tf.BertForSequenceClassification),
    "roberta": (
        tf.RobertaConfig,
        _TEXT | _ONE | {"type_vocab_size": 1, "pad_token_id": 1},
        tf.RobertaForSequenceClassification,
    ),
    "deberta": (tf.DebertaV2Config, _DEBERTA, tf.DebertaV2ForSequenceClassification),
    "deberta_shared": (
        tf.DebertaV2Config,
        _DEBERTA | _CONV | {"share_att_key": True},
        tf.DebertaV2ForSequenceClassification,
    ),
    "vit": (
        tf.ViTConfig,
        _VIT | _ONE | {"image_size": 16, "patch_size": 8, "num_channels": 3},
        tf.ViTForImageClassification,
    ),
    "llama": (
        tf.LlamaConfig,
        _TEXT | _ONE | {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True},
        tf.LlamaForCausalLM,
    ),
    "albert": (
        tf.AlbertConfig,
        _TEXT | {"embedding_size": 16, "num_hidden_groups": 1},
        tf.AlbertForSequenceClassification,
    ),
}


def build(name: str) -> Any:
    """The model, in evaluation mode; its weights are wide enough that every part of it matters."""
    config_class, values, model_class = MODELS[name]
    torch.manual_seed(7)
    model = model_class(config_class(**values)).eval()
    model.config.use_cache = False
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.15)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


class Tiny:
    """Builds each model, folder and graph once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._models: dict[str, Any] = {}
        self._graphs: dict[tuple[str, bool, str], BaseGraph] = {}

    def model(self, name: str) -> Any:
        if name not in self._models:
            self._models[name] = build(name)
        return self._models[name]

    def folder(self, name: str) -> Path:
        path = self._root / name
        if not path.exists():
            with quiet():
                self.model(name).save_pretrained(path)
        return path

    def graph(self, name: str, *, headless: bool = False, provider: Any = "cpu") -> BaseGraph:
        """A graph that tests must not change; `load_transformers` makes one that they may."""
        key = (name, headless, provider)
        if key not in self._graphs:
            self._graphs[key] = load_transformers(self.folder(name), provider=provider, headless=headless)
        return self._graphs[key]

    def linears(self, name: str) -> list[str]:
        """The names of the model's linear layers."""
        return [n for n, m in self.model(name).named_modules() if isinstance(m, torch.nn.Linear)]

    def weight(self, name: str, module: str) -> np.ndarray:
        """A linear layer's weight, [out, in]."""
        array: np.ndarray = self.model(name).get_submodule(module).weight.detach().numpy()
        return array


@pytest.fixture(scope="module")
def traces_are_kept() -> None:
    """They are not: what the exporter makes is what these tests look at."""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny models."""
    torch.set_num_threads(1)
    return Tiny(tmp_path_factory.mktemp("tiny"))
