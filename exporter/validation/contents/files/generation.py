"""The tokens that start, end and pad an answer and the rules that it obeys, compared with transformers' settings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from eptx.bundle import AnswerRules, Generation, Manifest
from eptx.exporter.validation.base.lookups import answer_length
from eptx.exporter.validation.base.source import BaseSource, listed
from eptx.manifest.names import PAST
from eptx.runtime.validation.check import Check


def compare_generation(manifest: Manifest, source: BaseSource, model: Any) -> list[Check]:
    """Compares ``generation`` of ``eptx.json`` with the base.

    Args:
        manifest: of the bundle.
        source: the base.
        model: the base as it was trained: one that generates or not.
    """
    field, found = "eptx.json: generation", manifest.generation
    kind = _kind(source, model)
    if found is None:
        if kind is None:
            return [Check(field, "compared")]
        if not any(spec.name.startswith(PAST) for spec in manifest.inputs):
            return [Check(field, "unchecked", why="the graph has no cache, so it answers no prompts")]
        return [Check(field, "compared", f"says nothing; the base is a {kind}")]
    if found.kind != kind:
        return [Check(field, "compared", f"says {found.kind}; the base is {f'a {kind}' if kind else 'neither'}")]
    start = source.token("decoder_start_token_id") if kind == "encoder-decoder" else None
    wrong_start = None if found.start == start else f"says {found.start}; the base starts answers with {start}"
    return [
        Check(field, "compared"),
        Check(f"{field}.eos", "compared", wrong_ends(found.eos, source)),
        Check(f"{field}.pad", "compared", _wrong_pad(found, source, counts=manifest.routing == "batch")),
        Check(f"{field}.start", "compared", wrong_start),
        *(_compare_answers(field, found, source, model) if kind == "encoder-decoder" else []),
    ]


def _compare_answers(field: str, found: Generation, source: BaseSource, model: Any) -> list[Check]:
    """What an encoder-decoder's answers obey, and how long they may get."""
    rules, wanted = found.rules or AnswerRules(), _wanted_rules(source)
    wrong = [f"{name} is {_said(getattr(rules, name))}; the base has {_said(own)}" for name, own in wanted.items()]
    right = [_same_rule(getattr(rules, name), own) for name, own in wanted.items()]
    longest = answer_length(getattr(model, "get_base_model", lambda: model)())
    too_long = None if found.longest == longest else f"says {found.longest}; the base's positions end at {longest}"
    first = next((text for text, same in zip(wrong, right, strict=True) if not same), None)
    return [Check(f"{field}.rules", "compared", first), Check(f"{field}.longest", "compared", too_long)]


def _said(value: Any) -> str:
    """A setting, short enough for a line."""
    return str(value)[:60]


def _same_rule(found: Any, wanted: Any) -> bool:
    """Whether a rule is the base's. The order of tokens means nothing, but at the places of forced ones."""
    if not isinstance(wanted, list):
        return bool(found == wanted)
    if wanted and isinstance(wanted[0], set):
        return [set(place) for place in found] == wanted
    return set(found) == set(wanted)


def _wanted_rules(source: BaseSource) -> dict[str, Any]:
    """The settings of greedy search that ``generate`` would obey."""
    own = source.generation

    def number(name: str, nothing: float) -> float:
        value = getattr(own, name, None)
        return nothing if value is None else value

    words = getattr(own, "bad_words_ids", None) or []
    return {
        "forced": _wanted_forced(own),
        "suppress_tokens": [*(getattr(own, "suppress_tokens", None) or []), *(word[0] for word in words)],
        "begin_suppress_tokens": list(getattr(own, "begin_suppress_tokens", None) or []),
        "min_length": number("min_length", 0),
        "no_repeat_ngram_size": number("no_repeat_ngram_size", 0),
        "encoder_no_repeat_ngram_size": number("encoder_no_repeat_ngram_size", 0),
        "repetition_penalty": number("repetition_penalty", 1.0),
        "forced_eos": next(iter(listed(getattr(own, "forced_eos_token_id", None))), None),
    }


def _wanted_forced(own: Any) -> list[set[int]]:
    """The tokens behind the first: of speech models the language (one of all, if it is to be heard) and the task."""
    languages, tasks = getattr(own, "lang_to_id", None) or {}, getattr(own, "task_to_id", None) or {}
    language, task = getattr(own, "language", None), getattr(own, "task", None)
    if language is None and task is None:
        found = [set(listed(token)) for _, token in getattr(own, "forced_decoder_ids", None) or []]
    else:
        found = [set()]
    if languages and not any(found[:1]):
        heard = {token for name, token in languages.items() if language in (None, name, name.strip("<|>"))}
        found = [heard, *found[1:]]
    if tasks and (task or language):
        found.append({tasks[task or "transcribe"]})
    for name in ("no_timestamps_token_id", "forced_bos_token_id"):
        last = set(listed(getattr(own, name, None)))
        found += [last] if last and last not in found[-1:] else []
    return [place for place in found if place]


def wrong_ends(found: Collection[int], source: BaseSource) -> str | None:
    """What is wrong with the tokens that end an answer.

    They are those of the generation settings. GenAI's builder adds the token that ends the tokenizer's turns, which the
    settings of chat models often lack.
    """
    wanted = set(listed(source.token("eos_token_id")))
    turn = getattr(source.tokenizer, "eos_token_id", None)
    ends = set(found)
    # an id may be listed twice
    if ends == wanted or (turn is not None and ends == wanted | {turn}):
        return None
    said = ", ".join(map(str, sorted(ends))) or "none"
    base = ", ".join(map(str, sorted(wanted or set(listed(turn))))) or "none"
    return f"says {said}; the base ends answers with {base}"


def _wrong_pad(found: Generation, source: BaseSource, *, counts: bool) -> str | None:
    """What is wrong with the padding token.

    GenAI takes equal tokens at the end of a prompt for padding, so the token must not end turns. Where padding counts,
    in the mean of TuckA's released router, it must be the token that transformers pads with.
    """
    size = getattr(source.text_config, "vocab_size", None)
    ends = {*listed(source.token("eos_token_id")), *found.eos}
    base = source.token("pad_token_id")
    if size is not None and found.pad >= size:
        return f"says {found.pad}; the base knows {size} tokens"
    if counts:
        named = getattr(source.tokenizer, "pad_token_id", None)
        fills = [token for token in (named, base, *listed(source.token("eos_token_id"))) if token is not None]
        return f"says {found.pad}; the trained model is padded with {fills[0]}" if [found.pad] != fills[:1] else None
    if found.kind == "encoder-decoder" and base is not None and found.pad != base:
        return f"says {found.pad}; the base pads with {base}"
    if found.kind == "decoder" and found.pad in ends:
        return f"says {found.pad}, which ends answers: prompts that end with it would be cut"
    return None


def _kind(source: BaseSource, model: Any) -> str | None:
    """How a model generates: "decoder", "encoder-decoder", or None if it does not."""
    kept = getattr(model, "get_base_model", lambda: model)()
    if not getattr(kept, "can_generate", lambda: False)():
        return None
    return "encoder-decoder" if source.config.is_encoder_decoder else "decoder"
