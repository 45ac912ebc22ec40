"""The tokens that start, end and pad an answer, compared with transformers' ``GenerationConfig``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from eptx.bundle import Generation, Manifest
from eptx.exporter.validation.base.source import BaseSource, listed
from eptx.exporter.validation.check import Check
from eptx.manifest.names import PAST


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
    ]


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
