"""Small random encoder-decoders, calls of their graphs one after the other, and graphs kept from export to export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from eptx.bundle import Bundle
from eptx.exporter.bases import BaseGraph, load_encoder_decoder
from eptx.exporter.bases.weights.whole import Saved
from eptx.manifest.names import PAST, PRESENT, TASK_ID, TASK_ID_USED, USED
from eptx.runtime.ort.kernels import Kernels, kernel_library, register

#: EPT's target modules.
TARGETS = (
    *(f"{kind}Attention.{x}" for kind in ("Self", "EncDec") for x in "qkvo"),
    *("wi", "wo", "wi_0", "wi_1"),
)
VOCABULARY = 180
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "d_kv": 12,
    "num_heads": 4,
    "d_ff": 96,
    "num_layers": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
#: name -> configuration class, model class, settings of its own
ENCODER_DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "t5": ("T5Config", "T5ForConditionalGeneration", {}),
    "t5 gated": (
        "T5Config",
        "T5ForConditionalGeneration",
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 1},
    ),
    "mt5": ("MT5Config", "MT5ForConditionalGeneration", {"tie_word_embeddings": False, "num_decoder_layers": 3}),
}


def write_encoder_decoder(name: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A transformers folder with random weights whose answers vary, and whose positions matter."""
    import torch
    import transformers

    config_name, model_name, own = ENCODER_DECODERS[name]
    torch.manual_seed(seed)
    model = getattr(transformers, model_name)(getattr(transformers, config_name)(**(_SIZES | own | changes)))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "relative_attention_bias" in key:
                parameter.normal_(0, 1)
            elif key.endswith(("q.weight", "k.weight", "v.weight", "o.weight", "wi.weight", "wo.weight")):
                parameter.mul_(2)
            elif "layer_norm" in key:
                parameter.normal_(1, 0.1)
            elif key == "shared.weight":
                parameter.mul_(0.3)
    model.save_pretrained(folder)
    if name != "t5":
        _untie(folder)
    return folder


def _untie(folder: Path) -> None:
    """Gives a folder an ``lm_head`` of its own, as the released files of mT5 and of T5 1.1 have one."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    head = np.random.default_rng(7).normal(0, 0.2, tensors["shared.weight"].shape).astype(np.float32)
    save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})


class KeptGraphs:
    """Stands in for `load_encoder_decoder` so that a folder is traced once, not anew for every adapter put into it."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._made: dict[Path, list[tuple[BaseGraph, Path]]] = {}

    def __call__(self, folder: Path, **options: Any) -> list[BaseGraph]:
        """The graphs, of its own in every call."""
        if folder not in self._made:
            home = self._workspace / str(len(self._made))
            home.mkdir()
            graphs = load_encoder_decoder(folder, **options)
            for graph in graphs:
                ir.save(graph.model, home / graph.file)
            self._made[folder] = [(graph, home / graph.file) for graph in graphs]
        saved = (
            options.get("saved") or Saved()
        )  # whether there is a task `base` is the export's matter, and not the graph's
        return [
            replace(graph, model=ir.load(path), whole=replace(graph.whole, base=saved.base))
            for graph, path in self._made[folder]
        ]


class Calls:
    """A bundle's two graphs, called with a text and then with more and more tokens of its answer."""

    def __init__(self, bundle: Bundle, *, kernels: bool = True) -> None:
        self._bundle = bundle
        encoder = bundle.manifest.encoder
        assert encoder is not None
        self._encoder, self._decoder = (self._open(name, kernels) for name in (encoder.file, "model.onnx"))

    def encode(
        self, ids: np.ndarray | None = None, mask: np.ndarray | None = None, **inputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """All outputs of the encoder for right-padded rows, or for other inputs by name."""
        text = {"input_ids": ids, "attention_mask": mask}
        outputs = _run(self._encoder, {**{name: a for name, a in text.items() if a is not None}, **inputs})
        rows = len(next(iter(outputs.values())))
        if TASK_ID in inputs:
            inputs = {**inputs, TASK_ID: outputs.get(TASK_ID_USED, inputs[TASK_ID])}
        self._feeds = {**outputs, **inputs}
        if mask is not None:
            self._feeds["encoder_attention_mask"] = mask
        for spec in self._bundle.manifest.inputs:
            if spec.name.startswith(PAST):
                self._feeds[spec.name] = np.zeros((rows, int(spec.shape[1]), 0, int(spec.shape[3])), spec.dtype)
        return outputs

    def decode(self, tokens: np.ndarray, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs of the decoder for more tokens [rows, n] of every row."""
        outputs = _run(self._decoder, {**self._feeds, **inputs, "input_ids": tokens})
        for name in self._feeds:
            if name.startswith(PAST):
                self._feeds[name] = outputs[PRESENT + name.removeprefix(PAST)]
        self._feeds |= {name.removesuffix(USED): array for name, array in outputs.items() if name.endswith(USED)}
        return outputs

    def _open(self, name: str, kernels: bool) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        library = kernel_library()
        if kernels and self._bundle.operators and library is not None:
            register(options, Kernels(library, operators=self._bundle.operators))
        return ort.InferenceSession(self._bundle.path / name, options, providers=["CPUExecutionProvider"])


def _run(session: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [value.name for value in session.get_outputs()]
    given = {value.name: feeds[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(None, given), strict=True))


def texts(rows: int, *, seed: int = 0, longest: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Right-padded ids and mask of rows of different lengths."""
    ids = np.random.default_rng(seed).integers(2, VOCABULARY, (rows, longest))
    mask = (np.arange(longest) < longest - 2 * np.arange(rows)[:, None] % longest).astype(np.int64)
    return ids * mask, mask
