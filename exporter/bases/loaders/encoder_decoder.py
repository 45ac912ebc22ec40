"""An encoder-decoder's transformers folder as two graphs.

The encoder's ends in the keys and values of every decoder layer's cross-attention, so ``EncDecAttention.k`` and ``.v``
are modules of the encoder's graph. The decoder's takes those, and its own cache of the tokens so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eptx._one_line import some
from eptx.bundle import Generation
from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.loaders.folder import folder_graph
from eptx.exporter.bases.loaders.trace import export_onnx
from eptx.exporter.bases.names import in_encoder
from eptx.exporter.bases.passes.fuse import fuse
from eptx.exporter.bases.passes.tidy import tidy
from eptx.exporter.bases.weights.model import (
    check_encoder_decoder,
    is_encoder_decoder,
    load_model,
    read_config,
)
from eptx.exporter.bases.weights.model_class import trained_class
from eptx.exporter.bases.weights.whole import Saved
from eptx.exporter.quiet import quiet
from eptx.files.strict_json import read_json_object
from eptx.manifest.names import CROSS, PAST
from eptx.progress import step

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ENCODER_FILE", "is_encoder_decoder", "load_encoder_decoder"]

ENCODER_FILE = "encoder.onnx"


def load_encoder_decoder(
    folder: Path, *, provider: Literal["cpu", "cuda"] = "cpu", saved: Saved | None = None
) -> list[BaseGraph]:
    """Exports a T5's encoder and decoder, with a free batch, lengths and past.

    Nothing is downloaded, no remote code runs, and pickles are not read.

    Args:
        folder: ``config.json`` and safetensors.
        provider: the execution provider whose fusions the graphs get.
        saved: modules that an adapter's tasks bring whole; all rows must share them.

    Returns:
        the encoder's graph: ``input_ids`` and ``attention_mask`` [batch, length] to ``cross.<layer>.key|value`` [batch,
        heads, length, head size]; and the decoder's: those, ``input_ids`` [batch, n], the encoder's mask as
        ``encoder_attention_mask`` and ``past_key_values.<layer>.key|value`` [batch, heads, past, head size] to
        ``logits`` [batch, n, vocabulary] and ``present.<layer>.key|value``.

    Raises:
        BaseModelError: a file is missing or damaged, or the weights do not fit the configuration.
        NotSupportedError: the architecture is not T5's, or rows do not share a module that is brought whole.
        AdapterError: what the tasks bring does not fit the class.
    """
    config = read_config(folder)
    check_encoder_decoder(config)
    generation = _generation(folder, config)
    with quiet():
        with step("load the base model"):
            model, whole = load_model(folder, config, trained_class(config, (), headless=False), saved)
            if whole.banks:
                raise NotSupportedError(f"tasks with their own {some(list(whole.banks))} need --mode static here")
            model.set_attn_implementation("eager")  # the plainest graph; the fused one is of the same products
        with step("export the encoder"):
            encoder = _encoder(model, provider)
        with step("export the decoder"):
            decoder = _decoder(model, provider)
    graph = replace(folder_graph(decoder, folder, config), generation=generation, whole=whole)
    return [
        replace(graph, model=encoder, file=ENCODER_FILE, holds=in_encoder),
        replace(graph, holds=lambda module: not in_encoder(module)),
    ]


def _encoder(model: Any, provider: str) -> ir.Model:
    from eptx.exporter.bases.loaders.halves import Encoder, encoder_sample  # imports transformers

    graph = export_onnx(Encoder(model), *encoder_sample())
    fuse(graph, provider)
    tidy(graph)
    return graph


def _decoder(model: Any, provider: str) -> ir.Model:
    from eptx.exporter.bases.loaders.halves import Decoder, decoder_sample  # imports transformers

    graph = export_onnx(Decoder(model), *decoder_sample(model.config))
    fuse(graph, provider)
    tidy(graph, {"encoder_attention_mask": {1: "encoder_length"}, CROSS: {2: "encoder_length"}, PAST: {2: "past"}})
    return graph


def _generation(folder: Path, config: Mapping[str, Any]) -> Generation:
    """The tokens that start, end and fill an answer, as transformers' own loop takes them."""
    path = folder / "generation_config.json"
    own = read_json_object(path, error=BaseModelError) if path.is_file() else {}
    settings = {**config, **{name: value for name, value in own.items() if value is not None}}
    eos = settings.get("eos_token_id")
    ends = eos if isinstance(eos, list) and eos else [eos]
    start = settings.get("decoder_start_token_id")

    def token(name: str, value: Any) -> int:
        if type(value) is int and 0 <= value < settings.get("vocab_size", 0):
            return value
        raise BaseModelError(f"config.json: {name} must be a token of the vocabulary, it is {str(value)[:40]}")

    return Generation(
        "encoder-decoder",
        tuple(token("eos_token_id", end) for end in ends),
        token("pad_token_id", settings.get("pad_token_id", start)),
        token("decoder_start_token_id", start),
    )
