"""An encoder-decoder's transformers folder as two graphs.

The encoder's ends in the keys and values of every decoder layer's cross-attention, so the cross-attention's projections
to them are modules of the encoder's graph. The decoder's takes those, and its own cache of the tokens so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eptx._one_line import one_line
from eptx.errors import NotSupportedError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.loaders.folder import folder_graph
from eptx.exporter.bases.loaders.tracing.trace import export_onnx
from eptx.exporter.bases.loaders.two_graphs.answers import answer_settings
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.passes.fuse import fuse
from eptx.exporter.bases.passes.tidy import tidy
from eptx.exporter.bases.weights.bank import Bank
from eptx.exporter.bases.weights.model import load_model, read_config
from eptx.exporter.bases.weights.model_class import trained_class
from eptx.exporter.bases.weights.whole import Saved, banked, in_graph
from eptx.exporter.quiet import quiet
from eptx.manifest.names import CROSS, ENCODER_MASK, PAST
from eptx.progress import step

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ENCODER_FILE", "load_encoder_decoder"]

ENCODER_FILE = "encoder.onnx"


def load_encoder_decoder(
    folder: Path,
    *,
    provider: Literal["cpu", "cuda"] = "cpu",
    class_name: str | None = None,
    saved: Saved | None = None,
) -> list[BaseGraph]:
    """Exports an encoder-decoder's two halves, with a free batch, lengths and past.

    Nothing is downloaded, no remote code runs, and pickles are not read.

    Args:
        folder: ``config.json`` and safetensors.
        provider: the execution provider whose fusions the graphs get.
        class_name: the class to export it as; None: the folder's own.
        saved: modules that an adapter's tasks bring whole; all rows must share them.

    Returns:
        the encoder's graph: ``input_ids`` and ``attention_mask`` [batch, length], or ``input_features`` [batch, mels,
        frames], to ``cross.<layer>.key|value`` [batch, heads, positions, head size]; and the decoder's: those,
        ``input_ids`` [batch, n], the encoder's mask (if it has one) as ``encoder_attention_mask`` and
        ``past_key_values.<layer>.key|value`` [batch, heads, past, head size] to ``logits`` [batch, n, vocabulary] and
        ``present.<layer>.key|value``.

    Raises:
        BaseModelError: a file is missing or damaged, or the weights do not fit the configuration.
        NotSupportedError: transformers cannot export it in two halves, or rows do not share a module that is brought
            whole.
        AdapterError: what the tasks bring does not fit the class.
    """
    config = read_config(folder)
    generation = answer_settings(folder, config)
    with quiet():
        with step("load the base model"):
            name = class_name or trained_class(config, (), headless=False)
            model, whole = load_model(folder, config, name, saved)
            model.set_attn_implementation("eager")  # the plainest graph; the fused one is of the same products
        encoder, decoder, modules, banks = _halves(model, folder, provider, whole.banks)
    graph = replace(folder_graph(decoder, folder, config), generation=generation, whole=replace(whole, banks=banks[1]))

    def in_encoder(module: str) -> bool:
        return any(alias in modules for alias in aliases(module, graph.prefix))

    return [
        replace(graph, model=encoder, file=ENCODER_FILE, holds=in_encoder, whole=replace(whole, banks=banks[0])),
        replace(graph, holds=lambda module: not in_encoder(module)),
    ]


def _halves(
    model: Any, folder: Path, provider: str, banks: Mapping[str, Bank]
) -> tuple[ir.Model, ir.Model, frozenset[str], list[dict[str, Bank]]]:
    """The encoder, the decoder, the modules that the encoder's graph holds, and the banks of each."""
    import torch

    from eptx.exporter.bases.loaders.two_graphs.halves import (  # imports transformers
        Decoder,
        Encoder,
        decoder_sample,
        encoder_sample,
    )

    with step("export the encoder"):
        half, sample = Encoder(model), encoder_sample(model, folder)
        try:
            with torch.no_grad():
                cross = half(**sample.inputs)["cross"]
        except Exception as e:  # a forward that takes no states of its encoder, or no cache, may raise anything
            kind = type(model).__name__
            raise NotSupportedError(
                f"a {kind} does not run in two halves, so eptx cannot export it: {one_line(e)}"
            ) from None
        inputs, shapes = decoder_sample(model, sample, cross)
        encoder = export_onnx(half, sample.inputs, sample.shapes)
        kept = [banked(encoder, banks)]
        fuse(encoder, provider, kept[0])
        modules = tidy(encoder)
    with step("export the decoder"):
        decoder = export_onnx(Decoder(model), inputs, shapes)
        kept.append(banked(decoder, banks))
        fuse(decoder, provider, kept[1])
        length = {CROSS: {2: "encoder_length"}} if ENCODER_MASK in inputs else {}
        tidy(decoder, {ENCODER_MASK: {1: "encoder_length"}, **length, PAST: {2: "past"}})
    return encoder, decoder, modules, [in_graph(each) for each in kept]
