"""Small random decoders of the architectures that GenAI's builder makes, and calls of their graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer, models, pre_tokenizers

from eptx.bundle import Bundle
from eptx.manifest.names import PAST, PRESENT
from eptx.runtime.ort.kernels import Kernels, kernel_library, register

_SIZES: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
#: name -> configuration class, model class, settings of its own
DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "llama tied": ("LlamaConfig", "LlamaForCausalLM", {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", "MistralForCausalLM", {"sliding_window": None}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {"head_dim": 16}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {"head_dim": 16}),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {"head_dim": 16}),
    "phi": ("PhiConfig", "PhiForCausalLM", {"num_attention_heads": 2}),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {"original_max_position_embeddings": 256}),
}


def write_decoder(name: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A decoder's transformers folder with random weights, biases that are not zero, and a tokenizer of 120 words."""
    import torch
    import transformers

    config_name, model_name, own = DECODERS[name]
    torch.manual_seed(seed)
    config = getattr(transformers, config_name)(**(_SIZES | own | changes))
    model = getattr(transformers, model_name)(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif parameter.ndim == 2:
                parameter.mul_(3)  # the default's 0.02 gives logits that hardly differ
    model.save_pretrained(folder)
    write_tokenizer(folder, config.vocab_size)
    return folder


def write_tokenizer(folder: Path, size: int) -> None:
    """Words w0, w1, ... of which 0 pads, 1 begins and 2 ends a text."""
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="w0", bos_token="w1", eos_token="w2", unk_token="w3"
    )
    fast.save_pretrained(folder)


def write_decoder_bundle(folder: Path) -> Bundle:
    """A small Llama with an EPT adapter of three tasks, conditioned."""
    from eptx.calibration import export_bundle
    from eptx.exporter import ExportOptions
    from tests.exporter.validation.adapters import linear_shapes, write_ept

    with tempfile.TemporaryDirectory() as scratch:
        base = write_decoder("llama", Path(scratch) / "base")
        adapter = write_ept(Path(scratch) / "ept", linear_shapes(base, ("q_proj", "v_proj", "down_proj")), seed=1)
        return export_bundle(base, [adapter], folder, ExportOptions(mode="conditioned", top_k=2))


class Steps:
    """A decoder's graph, called with more and more tokens of right-padded rows."""

    def __init__(self, bundle: Bundle, *, kernels: bool = True) -> None:
        options = ort.SessionOptions()
        library = kernel_library()
        if kernels and bundle.operators and library is not None:
            register(options, Kernels(library, operators=bundle.operators))
        self._session = ort.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
        self._names = [value.name for value in self._session.get_outputs()]
        self._specs = {spec.name: spec for spec in bundle.manifest.inputs}
        self._cache: dict[str, np.ndarray] = {}

    def prefill(self, rows: Sequence[Sequence[int]], **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs for whole rows, padded with zeros."""
        longest = max(map(len, rows))
        ids = np.zeros((len(rows), longest), np.int64)
        self._mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], self._mask[i, : len(row)] = row, 1
        for name, spec in self._specs.items():
            if name.startswith(PAST):
                self._cache[name] = np.zeros((len(rows), int(spec.shape[1]), 0, int(spec.shape[3])), spec.dtype)
        return self._run(ids, inputs)

    def decode(self, tokens: Sequence[int], **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs for one more token of every row."""
        self._mask = np.concatenate([self._mask, np.ones((len(tokens), 1), np.int64)], axis=1)
        return self._run(np.array(tokens)[:, None], inputs)

    def _run(self, ids: np.ndarray, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        feeds = {"input_ids": ids, "attention_mask": self._mask, **self._cache, **inputs}
        outputs = dict(zip(self._names, self._session.run(None, feeds), strict=True))
        self._cache = {name: outputs[PRESENT + name.removeprefix(PAST)] for name in self._cache}
        return outputs
