"""What GenAI's runtime reads of a decoder: ``genai_config.json``, and the tokens that end and fill a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eptx.bundle import Generation
from eptx.bundle.genai_config import GENAI_CONFIG
from eptx.errors import BaseModelError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.loaders.genai_search import search_settings
from eptx.exporter.bases.weights.model import parse_config
from eptx.exporter.quiet import quiet
from eptx.files.strict_json import dump_json, read_json_object
from eptx.manifest.names import LOGITS, PAST, PRESENT
from eptx.providers import CPU

__all__ = ["ends_and_padding", "genai_config", "setting"]

#: GenAI wants a number where nothing limits the context.
_NO_LIMIT = 1 << 20
#: What GenAI's builder writes of a search where the base says nothing.
_SEARCH: Mapping[str, Any] = {
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": True,
    "length_penalty": 1.0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}


def ends_and_padding(eos: Any, pad: Any, config: Mapping[str, Any]) -> Generation:
    """The tokens that end and fill a row.

    GenAI takes every trailing token that equals the padding token for padding. Where that also ends a turn, as in many
    chat models, it would cut prompts short, so one that ends nothing is taken.

    Args:
        eos: the token that ends an answer, or several.
        pad: the padding token, if the model has one.
        config: the base's ``config.json``.

    Raises:
        BaseModelError: no token ends an answer.
    """
    ends = tuple(eos) if isinstance(eos, list) else (eos,)
    if not ends or not all(type(end) is int for end in ends):
        raise BaseModelError("config.json: has no eos_token_id, so no answer would end; write the token there")
    known = (pad, config.get("unk_token_id"), config.get("bos_token_id"))
    fill = next(c for c in (*known, *range(len(ends) + 1)) if type(c) is int and c >= 0 and c not in ends)
    return Generation("decoder", ends, fill)


def genai_config(graph: BaseGraph, provider: str) -> bytes:
    """GenAI's configuration for a bundle: the builder's, or one of what the graph shows, with no library to load.

    Args:
        graph: a decoder's.
        provider: the execution provider that it is exported for.
    """
    assert graph.generation is not None
    if GENAI_CONFIG in graph.files:
        settings = read_json_object(graph.files[GENAI_CONFIG], error=BaseModelError)
    else:
        settings = _shown(graph, [] if provider == CPU else [{provider: {}}])
    model, search = settings["model"], settings.get("search")
    model["pad_token_id"] = graph.generation.pad
    model["vocab_size"] = max(graph.whole.vocabulary or (model["vocab_size"],))
    for place, key in ((model, "context_length"), (search, "max_length")):
        if graph.longest is not None and isinstance(place, dict) and type(place.get(key)) is int:
            place[key] = min(place[key], graph.longest)  # a user's file may know of more than there are
    options = setting(settings, "model", "decoder", "session_options")
    options.pop("custom_ops_library", None)  # a bundle names no library to load
    return dump_json(settings)


def _shown(graph: BaseGraph, providers: list[dict[str, dict[str, str]]]) -> dict[str, Any]:
    """The configuration of a graph that the builder did not make."""
    assert graph.generation is not None and graph.folder is not None
    caches = [value for value in graph.model.graph.inputs if value.name and value.name.startswith(PAST)]
    shape = caches[0].shape
    assert shape is not None
    parsed = parse_config(graph.folder, graph.config)
    with quiet():
        search = search_settings(graph.folder, parsed)
    heads, size = shape[1], shape[3]
    decoder = {
        "session_options": {"provider_options": providers},
        "filename": graph.file,
        "head_size": size,
        "hidden_size": parsed.hidden_size,
        "num_attention_heads": parsed.num_attention_heads,
        "num_hidden_layers": len(caches) // 2,
        "num_key_value_heads": heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": f"{PAST}%d.key",
            "past_value_names": f"{PAST}%d.value",
        },
        "outputs": {
            "logits": LOGITS,
            "present_key_names": f"{PRESENT}%d.key",
            "present_value_names": f"{PRESENT}%d.value",
        },
    }
    ends = list(graph.generation.eos)
    bos = graph.config.get("bos_token_id")
    model = {
        "type": "decoder",
        "decoder": decoder,
        "bos_token_id": bos if type(bos) is int else 1,
        "eos_token_id": ends,
        "pad_token_id": graph.generation.pad,
        "context_length": graph.longest or _NO_LIMIT,
        "vocab_size": parsed.vocab_size,
    }
    shared = {"past_present_share_buffer": False, "max_length": graph.longest or _NO_LIMIT}
    return {"model": model, "search": {**_SEARCH, **search, **shared}}


def setting(settings: Mapping[str, Any], *keys: str) -> Any:
    """A value inside GenAI's configuration.

    Raises:
        BaseModelError: it is not there.
    """
    value: Any = settings
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise BaseModelError(f"{GENAI_CONFIG}: has no {'.'.join(keys)}; it is not the configuration of a decoder")
        value = value[key]
    return value
