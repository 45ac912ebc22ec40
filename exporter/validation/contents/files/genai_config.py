"""``genai_config.json``, which GenAI reads: every field is compared with the base that it comes from.

Sizes and lengths are those of the configuration; the special tokens and the search those of the generation settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from eptx.bundle import Bundle
from eptx.errors import BaseModelError, BundleError
from eptx.exporter.validation.base.source import BaseSource, listed, same
from eptx.exporter.validation.base.windows import context
from eptx.exporter.validation.contents.files.generation import wrong_ends
from eptx.files.strict_json import dump_json, read_json_object
from eptx.manifest.names import MODEL_FILE, PAST, PRESENT
from eptx.runtime.validation.check import Check

_FILE = "genai_config.json"
#: Settings of the search, with the defaults of GenAI's builder (0.18).
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
#: GenAI's name of a decoder that needs nothing of its own; and its context where nothing limits it.
_ANY, _NO_LIMIT = "decoder", 1 << 20
#: GenAI's names of the graph's tensors.
_INPUTS = {"input_ids": "input_ids", "attention_mask": "attention_mask", "position_ids": "position_ids"}
_CACHE = {"key": ("past_key_names", "present_key_names"), "value": ("past_value_names", "present_value_names")}
#: Settings of the session, which change no result; eptx opens its own.
_SESSION = "model.decoder.session_options."
_HARMLESS = (f"{_SESSION}log_id",)
_ON_CUDA = ("ep.cuda.fpa_intb_gemm", "optimization.disable_specified_optimizers")


def compare_genai(
    bundle: Bundle, source: BaseSource, graph: ir.Graph, given: Path | None, words: int | None
) -> list[Check]:
    """Compares ``genai_config.json`` with the base.

    Args:
        bundle: the bundle.
        source: its base.
        graph: of ``model.onnx``.
        given: the ``genai_config.json`` beside the graph that the user gave as the base, whose settings count too.
        words: how many tokens the trained model knows; None: those that the base's configuration says.

    Raises:
        BundleError, BaseModelError: a file is damaged.
    """
    generation = bundle.manifest.generation
    path = bundle.file(_FILE)
    if generation is None or generation.kind != "decoder":
        return [] if path is None else [Check(_FILE, "compared", "is there, and the model is no decoder")]
    if path is None:
        return [Check(_FILE, "compared", "is missing: GenAI cannot open the bundle")]
    found = dict(_flat(read_json_object(path, error=BundleError)))
    own = {} if given is None else dict(_flat(read_json_object(given, error=BaseModelError)))
    wanted = _wanted(source, graph) | ({} if words is None else {"model.vocab_size": words})
    if found.get("model.type") == _ANY:
        wanted["model.type"] = _ANY
    checks = [_tokens(found, bundle, source)]
    for key in sorted({*found, *wanted} - {"model.eos_token_id", "model.pad_token_id"}):
        checks.append(_field(key, found, wanted, own, bundle.manifest.provider))
    return checks


def _field(
    key: str, found: Mapping[str, Any], wanted: Mapping[str, Any], own: Mapping[str, Any], provider: str
) -> Check:
    name = f"{_FILE}: {key}"
    if key not in found:
        return Check(name, "compared", f"is missing; the base gives {_shown(wanted[key])}")
    value = found[key]
    if key in own and same(value, own[key]) and not key.startswith(("model.decoder.inputs.", "model.decoder.outputs.")):
        return Check(name, "compared")
    if key not in wanted:
        return Check(name, "compared", _wrong_extra(key, value, provider))
    wrong = None if same(value, wanted[key]) else f"is {_shown(value)}; the base gives {_shown(wanted[key])}"
    return Check(name, "compared", wrong)


def _wanted(source: BaseSource, graph: ir.Graph) -> dict[str, Any]:
    """Field -> its value according to the base."""
    config = source.text_config
    length = getattr(config, "seq_length", None) or context(config) or _NO_LIMIT
    cache = next(value.shape for value in graph.inputs if str(value.name).startswith(PAST))
    assert cache is not None
    architecture = str((source.config.architectures or [""])[0])
    shares = any(node.op_type == "GroupQueryAttention" for node in graph)
    begin = source.token("bos_token_id")
    begin = getattr(source.tokenizer, "bos_token_id", None) if begin is None else begin
    wanted: dict[str, Any] = {
        "model.bos_token_id": 1 if begin is None else begin,
        "model.context_length": length,
        "model.type": architecture.partition("For")[0].lower(),
        "model.vocab_size": config.vocab_size,
        "model.decoder.filename": MODEL_FILE,
        "model.decoder.head_size": cache[3],  # runs show that the graph's cache is the model's
        "model.decoder.hidden_size": config.hidden_size,
        "model.decoder.num_attention_heads": config.num_attention_heads,
        "model.decoder.num_hidden_layers": config.num_hidden_layers,
        "model.decoder.num_key_value_heads": cache[1],
        "search.max_length": length,
        "search.past_present_share_buffer": shares,
    }
    for key, default in _SEARCH.items():
        said = getattr(source.generation, key, None)
        wanted[f"search.{key}"] = default if said is None else said
    return wanted | {f"model.decoder.{key}": value for key, value in _names(graph)}


def _names(graph: ir.Graph) -> Iterator[tuple[str, str]]:
    """GenAI's names of the graph's inputs and outputs."""
    inputs = {value.name for value in graph.inputs}
    yield from ((f"inputs.{key}", name) for key, name in _INPUTS.items() if name in inputs)
    yield "outputs.logits", "logits"
    for kind, (past, present) in _CACHE.items():
        yield f"inputs.{past}", f"{PAST}%d.{kind}"
        yield f"outputs.{present}", f"{PRESENT}%d.{kind}"


def _tokens(found: Mapping[str, Any], bundle: Bundle, source: BaseSource) -> Check:
    """The tokens that end an answer and that pad: those of the base and of ``eptx.json``."""
    assert bundle.manifest.generation is not None
    eos, pad = found.get("model.eos_token_id"), found.get("model.pad_token_id")
    name = f"{_FILE}: model.eos_token_id"
    wrong = wrong_ends(listed(eos), source)
    if wrong is None and pad != bundle.manifest.generation.pad:
        name, wrong = f"{_FILE}: model.pad_token_id", f"is {pad}; eptx.json says {bundle.manifest.generation.pad}"
    return Check(name if wrong else f"{_FILE}: model.eos_token_id, model.pad_token_id", "compared", wrong)


def _wrong_extra(key: str, value: Any, provider: str) -> str | None:
    """The check of a field that is not derived from the base; settings of the session are fine."""
    option = key.removeprefix(_SESSION)
    if key in _HARMLESS or (provider == "cuda" and option in _ON_CUDA):
        return None
    if option == "provider_options":
        named = [next(iter(entry), "").lower() for entry in value if isinstance(entry, dict)]
        fits = named == [] if provider == "cpu" else named == [provider]
        return None if fits else f"names {', '.join(named) or 'none'}; the bundle is for {provider}"
    return f"is {_shown(value)}; no base asks for it"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Path -> field."""
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _shown(value: Any) -> str:
    return dump_json(value).decode().strip()
