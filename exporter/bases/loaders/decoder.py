"""A decoder's transformers folder as a base graph with a cache, by transformers' exporter.

It is for what GenAI's builder does not build. The graph has the builder's inputs and outputs, so that the same
programs run it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from eptx._one_line import one_line
from eptx.bundle import Generation
from eptx.errors import BaseModelError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.loaders.folder import folder_graph
from eptx.exporter.bases.loaders.genai_config import ends_and_padding
from eptx.exporter.bases.loaders.tracing.trace import export_onnx
from eptx.exporter.bases.passes.fuse import fuse
from eptx.exporter.bases.passes.rotary import context, refuse_dynamic
from eptx.exporter.bases.passes.tidy import tidy
from eptx.exporter.bases.weights.model import load_model, read_config
from eptx.exporter.bases.weights.whole import Saved
from eptx.exporter.quiet import quiet
from eptx.manifest.names import PAST
from eptx.progress import step

#: What configurations call a window of attention, and scores that fall with the distance.
_BY_SLOT = ("sliding_window", "attention_window", "window_size", "attention_chunk_size", "alibi")


def load_decoder(
    folder: Path, class_name: str, *, provider: Literal["cpu", "cuda"] = "cpu", saved: Saved | None = None
) -> BaseGraph:
    """Exports a decoder with a free batch, length and past.

    Nothing is downloaded, no remote code runs, and pickles are not read.

    Args:
        folder: ``config.json`` and safetensors.
        class_name: the class of transformers to load it as.
        provider: the execution provider whose fusions the graph gets.
        saved: modules that an adapter's tasks bring whole.

    Returns:
        the graph: ``input_ids`` [batch, length], ``attention_mask`` [batch, past + length] and
        ``past_key_values.<layer>.key|value`` [batch, heads, past, head size] to ``logits`` [batch, length, vocabulary]
        and ``present.<layer>.key|value``.

    Raises:
        BaseModelError: a file is missing or damaged, or the weights do not fit the configuration.
        NotSupportedError: the architecture has no such cache, or the exporter cannot trace it.
        AdapterError: what the tasks bring does not fit the class.
    """
    config = read_config(folder)
    generation = _generation(folder, config)
    with quiet():
        with step("load the base model"):
            model, whole = load_model(folder, config, class_name, saved)
            model.set_attn_implementation("eager")  # the plainest graph
        parsed = model.config
        refuse_dynamic(parsed)
        from eptx.exporter.bases.loaders.cached import allow_cache, cached_sample  # imports transformers

        with step("export the base graph"):
            sample = cached_sample(model)
            allow_cache(model, by_slot=any(_says(parsed, name) for name in _BY_SLOT))
            graph = export_onnx(model, *sample)
        del model
        with step("fuse the base graph"):
            fuse(graph, provider)
            tidy(graph, {PAST: {2: "past"}, "attention_mask": {1: "total"}})
    return replace(
        folder_graph(graph, folder, config),
        whole=whole,
        generation=generation,
        longest=context(parsed),
    )


def _says(parsed: Any, name: str) -> bool:
    inner = getattr(parsed, "attn_config", parsed)
    return bool(getattr(parsed, name, None) or getattr(inner, name, None))


def _generation(folder: Path, config: dict[str, Any]) -> Generation:
    from transformers import GenerationConfig

    try:
        said = GenerationConfig.from_pretrained(folder, local_files_only=True)  # reads config.json where it is alone
    except Exception as e:  # whatever the file's values provoke
        raise BaseModelError(f"{folder.name}: its generation settings cannot be read: {one_line(e)}") from None
    return ends_and_padding(said.eos_token_id, said.pad_token_id, config)
