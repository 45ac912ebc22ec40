"""A decoder's transformers folder as a base graph, made by the model builder of ONNX Runtime GenAI.

The builder writes a graph with a key-value cache, fused attention and packed projections in seconds, quantized if asked
to. It names modules in its own words (``attn`` for ``self_attn``, ``qkv_proj`` for three), so what it calls them is
kept beside the graph, and `locate` compares the weights as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from eptx.bundle.genai_config import GENAI_CONFIG
from eptx.errors import BaseModelError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.bases.loaders.folder import folder_graph
from eptx.exporter.bases.loaders.genai_builder import build, has_tokenizer
from eptx.exporter.bases.loaders.genai_config import ends_and_padding, setting
from eptx.exporter.bases.loaders.genai_search import search_settings
from eptx.exporter.bases.not_built import NotBuiltError
from eptx.exporter.bases.passes.rotary import context, rotary_tables, set_rotary
from eptx.exporter.bases.passes.tidy import tidy
from eptx.exporter.bases.passes.windows import set_windows
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.bases.weights.checkpoint import BaseCheckpoint
from eptx.exporter.bases.weights.model import parse_config, read_config
from eptx.exporter.quiet import quiet
from eptx.files.strict_json import dump_json, read_json_object
from eptx.manifest.names import PAST, PRESENT
from eptx.progress import step

__all__ = ["BuilderPrecision", "is_decoder", "is_genai", "load_genai"]

BuilderPrecision = Literal["fp32", "fp16", "int4"]

_TEXT = ("input_ids", "attention_mask")
_KINDS = (".key", ".value")
#: How the builder's name of the norm behind the last layer ends.
_LAST_NORM = ".final_norm_layernorm.weight"
#: Nothing of a hub; caches that grow, also where a layer looks at a window of the past only.
_OPTIONS = ("hf_token=false", "windowed_kv_cache=false")
#: For checkpoints that pack the two (Phi-3): the builder would take them apart, and the adapted module with them.
_PACKED_MLP = "fuse_mlp_gate_up=true"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
#: What GenAI reads beside the model.
_FILES = (GENAI_CONFIG, *_TOKENIZER)


def is_decoder(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a model that continues text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = _architecture(config)
    return name.endswith("ForCausalLM") or name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()


def is_genai(graph: BaseGraph) -> bool:
    """Whether a graph is one of GenAI's."""
    return GENAI_CONFIG in graph.files


def load_genai(
    folder: Path,
    workspace: Path,
    *,
    precision: BuilderPrecision = "fp32",
    provider: Literal["cpu", "cuda"] = "cpu",
    origin: Path | None = None,
) -> BaseGraph:
    """Builds the graph of a decoder's transformers folder; nothing is downloaded and no remote code runs.

    Args:
        folder: ``config.json``, safetensors, and a tokenizer if the bundle is to read text.
        workspace: an empty folder for what the builder writes; the graph reads its weights from there.
        precision: "int4" for weights in blocks; "fp16" for a graph that computes in float16 where the provider does
            (CUDA; on CPUs float16 is a matter of storage, and the graph is float32).
        provider: the execution provider that the graph is for.
        origin: the folder that the user gave, where a task was folded into that.

    Returns:
        the graph, with the cache as inputs ``past_key_values.<layer>.key|value`` [batch, key-value heads, past, head
        size] and outputs ``present.<layer>.key|value``.

    Raises:
        BaseModelError: a file is missing or damaged, or the weights do not fit the configuration.
        NotBuiltError: the builder does not build it as transformers computes it.
        NotSupportedError: GenAI is not installed.
    """
    config = read_config(folder)
    checkpoint = BaseCheckpoint(folder)  # refuses pickles and damaged files before the library meets them
    parsed = parse_config(folder, config)
    with quiet():
        rotary_tables(parsed)  # refuses what no table can be made of before anything is built
    packed_mlp = any(name.endswith(".gate_up_proj.weight") for name in checkpoint)
    built = "fp32" if precision == "fp16" and provider == "cpu" else precision
    with step("build the base graph"):
        build(folder, workspace, parsed, built, provider, [*_OPTIONS, *([_PACKED_MLP] if packed_mlp else [])])
    _complete(workspace / GENAI_CONFIG, folder, parsed)
    model = ir.load(workspace.absolute() / "model.onnx")
    _check_inputs(model.graph, (*_TEXT, "position_ids") if provider == "cuda" else _TEXT)
    common.LiftConstantsToInitializersPass(size_limit=16)(model)
    graph = as_genai(folder_graph(model, folder, config, origin=origin), workspace)
    _check_outputs(model.graph)
    made_up = () if has_tokenizer(folder) else _TOKENIZER
    return replace(graph, files={name: path for name, path in graph.files.items() if name not in made_up})


def _complete(path: Path, folder: Path, parsed: Any) -> None:
    """Has GenAI's configuration say of the search what the base says."""
    settings = read_json_object(path, error=BaseModelError)
    with quiet():
        settings["search"] = {**settings["search"], **search_settings(folder, parsed)}
    path.write_bytes(dump_json(settings))


def as_genai(graph: BaseGraph, home: Path) -> BaseGraph:
    """Adds to a graph of the builder what its folder says of it.

    Args:
        graph: as the builder made it; changed in place.
        home: its folder, with ``genai_config.json``.

    Raises:
        BaseModelError: the configuration is damaged, or is not of one decoder with a cache.
    """
    settings = read_json_object(home / GENAI_CONFIG, error=BaseModelError)
    _name_modules(graph.model.graph)
    _fix_epsilon(graph.model.graph, graph.config)
    _fix_scale(graph.model.graph, graph.config)
    _fix_cache(graph.model.graph, settings)
    ends, positions = setting(settings, "model", "eos_token_id"), None
    if graph.folder is not None:
        parsed = parse_config(graph.folder, graph.config)
        positions = context(parsed)
        with quiet():
            tables = rotary_tables(parsed)
        if tables is not None:
            set_rotary(graph.model.graph, tables, parsed)
        set_windows(graph.model.graph, parsed)
    tidy(graph.model)
    return replace(
        graph,
        places=_packed_places(graph),
        files={name: home / name for name in _FILES if (home / name).is_file()},
        generation=ends_and_padding(ends, settings["model"].get("pad_token_id"), graph.config),
        longest=positions,
    )


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _check_outputs(graph: ir.Graph) -> None:
    """Refuses a graph with a cache that nothing computes: what the builder makes in float32 for CUDA."""
    for output in graph.outputs:
        if output.producer() is None and not output.is_graph_input():
            raise NotBuiltError(f"GenAI's builder (0.18) makes a graph whose {output.name} no node computes")


def _check_inputs(graph: ir.Graph, known: tuple[str, ...]) -> None:
    """Refuses a graph that wants to be told more than tokens, or keeps something else than keys and values."""
    others = [str(v.name) for v in graph.inputs if v.name not in known and not str(v.name).startswith(PAST)]
    states = [str(v.name) for v in graph.inputs if str(v.name).startswith(PAST) and not str(v.name).endswith(_KINDS)]
    if others or states:
        raise NotBuiltError(
            f"the graph of GenAI's builder has an input {[*others, *states][0]}, which eptx does not fill"
        )


def _name_modules(graph: ir.Graph) -> None:
    """Gives the products, and the last norm, the names of transformers' modules."""
    for product in find_products(graph):
        if product.node.name:
            product.node.name = product.node.name.replace("/attn/", "/self_attn/")
    for name in [name for name in graph.initializers if name.endswith(_LAST_NORM)]:
        value = graph.initializers.pop(name)
        value.name = "model.norm.weight"
        graph.initializers.add(value)


def _fix_epsilon(graph: ir.Graph, config: Mapping[str, Any]) -> None:
    """Layer norms as the configuration says: the builder (0.18) looks for ``rms_norm_eps`` only, which Phi has not."""
    epsilon = config.get("layer_norm_eps")
    for node in graph:
        if node.op_type in ("LayerNormalization", "SkipLayerNormalization") and isinstance(epsilon, float):
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)


def _fix_scale(graph: ir.Graph, config: Mapping[str, Any]) -> None:
    """Gemma's embeddings times the root of their width: the builder (0.18) rounds that to two decimals."""
    width = config.get("hidden_size")
    if not str(config.get("model_type")).startswith("gemma") or not isinstance(width, int):
        return
    for node in graph:
        scale = node.inputs[1] if node.op_type == "Mul" and (node.name or "").endswith("/embed_tokens/Mul") else None
        if scale is not None:
            dtype = scale.dtype or ir.DataType.FLOAT
            node.replace_input_with(1, add_initializer(graph, "embedding_scale", np.array(width**0.5, dtype.numpy())))


def _fix_cache(graph: ir.Graph, settings: Mapping[str, Any]) -> None:
    """Says how wide a head is; the builder leaves it open, since a cache may be quantized."""
    size = setting(settings, "model", "decoder", "head_size")
    for value in (*graph.inputs, *graph.outputs):
        if value.name and value.name.startswith((PAST, PRESENT)) and value.shape is not None:
            value.shape = ir.Shape([*list(value.shape)[:3], size])


def _packed_places(graph: BaseGraph) -> dict[str, str]:
    """Module -> node and columns, for modules that the builder packs into one product."""
    if graph.folder is None:
        return {}
    checkpoint = BaseCheckpoint(graph.folder)
    places: dict[str, str] = {}
    for product in find_products(graph.model.graph):
        name = product.node.name or ""
        parent, _, kind = name.rpartition("/qkv_proj/")
        if not kind.startswith("MatMul"):
            continue
        start = 0
        for part in (f"{parent.strip('/').replace('/', '.')}.{x}_proj" for x in "qkv"):
            if f"{part}.weight" not in checkpoint:
                break  # packed in the checkpoint too
            stop = start + checkpoint.shape(f"{part}.weight")[0]
            places[part] = f"{name}[{start}:{stop}]"
            start = stop
    return places
