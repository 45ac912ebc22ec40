"""The model type, vocabulary size and longest text of ``eptx.json``, compared with the loaded model."""

from __future__ import annotations

from collections.abc import Iterator

from eptx.bundle import Bundle, Manifest
from eptx.exporter.validation.base.lookups import Lookups
from eptx.exporter.validation.base.source import BaseSource
from eptx.runtime.validation.check import Check


def compare_text_limits(bundle: Bundle, source: BaseSource, found: Lookups) -> list[Check]:
    """Compares ``model_type``, ``vocab_size`` and ``max_length`` with the base.

    Args:
        bundle: the bundle.
        source: its base.
        found: the sizes of the base's tables.
    """
    manifest = bundle.manifest
    wrong = None
    # an ONNX file alone does not tell its model type
    if manifest.model_type != source.config.model_type and (manifest.model_type or "config.json" in manifest.files):
        wrong = f"says {manifest.model_type!r}; the base is {source.config.model_type!r}"
    checks = [Check("eptx.json: model_type", "compared", wrong)]
    if not reads_text(manifest):
        return [*checks, *_nothing(manifest)]
    alone = "config.json" not in manifest.files and not manifest.sources.base
    checks += [_words(manifest, source, found, alone), *_words_of_tasks(manifest, found)]
    return [*checks, _positions(manifest, source, found, alone)]


def reads_text(manifest: Manifest) -> bool:
    """Whether a bundle reads tokens."""
    specs = (*manifest.inputs, *(manifest.encoder.inputs if manifest.encoder is not None else ()))
    return any(spec.name == "input_ids" for spec in specs)


def _words(manifest: Manifest, source: BaseSource, found: Lookups, alone: bool) -> Check:
    name = "eptx.json: vocab_size"
    wanted = found.words if found.words is not None else getattr(source.text_config, "vocab_size", None)
    if manifest.vocab_size == wanted:
        return Check(name, "compared")
    if manifest.vocab_size is None and alone:
        return _unsaid(name)
    return Check(name, "compared", f"says {manifest.vocab_size}; the base knows {wanted} tokens")


def _words_of_tasks(manifest: Manifest, found: Lookups) -> Iterator[Check]:
    """A check for each task that has fewer tokens than others, or is said to."""
    for task in manifest.tasks:
        wanted = found.of_tasks.get(task.name)
        if (wanted, task.vocab_size) != (None, None):
            knows = "all of the model's" if wanted is None else str(wanted)
            wrong = None if task.vocab_size == wanted else f"says {task.vocab_size}; it was trained with {knows}"
            yield Check(f"eptx.json: task {task.name}: vocab_size", "compared", wrong)


def _positions(manifest: Manifest, source: BaseSource, found: Lookups, alone: bool) -> Check:
    name = "eptx.json: max_length"
    wanted = found.longest
    if manifest.max_length == wanted:
        return Check(name, "compared")
    if manifest.max_length is None and alone:
        return _unsaid(name)
    if manifest.max_length is None and found.positions is None and "max_position_embeddings" not in source.written:
        return Check(
            name,
            "unchecked",
            why=f"the base leaves it open, and has no table of positions; transformers takes {wanted}",
        )
    reads = "has no limit" if wanted is None else f"reads {wanted} tokens at most"
    return Check(name, "compared", f"says {manifest.max_length}; the base {reads}")


def _unsaid(name: str) -> Check:
    return Check(name, "unchecked", why="the bundle was made from an ONNX file alone, and leaves it open")


def _nothing(manifest: Manifest) -> Iterator[Check]:
    """A model that reads no tokens has no vocabulary and no longest text."""
    for field, value in (("vocab_size", manifest.vocab_size), ("max_length", manifest.max_length)):
        wrong = None if value is None else f"says {value}; the model is given no tokens"
        yield Check(f"eptx.json: {field}", "compared", wrong)
