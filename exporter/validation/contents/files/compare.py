"""Compares everything but a model's numbers with the file or the loader that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from eptx.bundle import Bundle
from eptx.exporter.validation.base.lookups import Lookups, lookups
from eptx.exporter.validation.base.source import BaseSource
from eptx.exporter.validation.contents.files.chat_template import compare_chat
from eptx.exporter.validation.contents.files.copied import alone, compare_copied_files
from eptx.exporter.validation.contents.files.genai_config import compare_genai
from eptx.exporter.validation.contents.files.generation import compare_generation
from eptx.exporter.validation.contents.files.least_runtime import compare_least_runtime
from eptx.exporter.validation.contents.files.stored_types import compare_stored_types
from eptx.exporter.validation.contents.files.tasks import ExpectedTask, compare_tasks
from eptx.exporter.validation.contents.files.text_limits import compare_text_limits
from eptx.exporter.validation.contents.files.tokenizer import compare_tokenizer
from eptx.runtime.validation.check import Check


def compare_files(
    bundle: Bundle,
    base: Path,
    model: Any,
    tasks: Sequence[ExpectedTask],
    found: Lookups | None = None,
    *,
    base_onnx: Path | None = None,
    off: Sequence[ExpectedTask] = (),
    homes: Sequence[Path] = (),
) -> list[Check]:
    """Compares the manifest and the files beside the model with what they were made from.

    Args:
        bundle: the bundle; its files are known to be those that it lists.
        base: the base's transformers folder.
        model: the base as transformers loads it, in the class that was trained, adapted or not; it is not changed.
        tasks: the trained tasks by id, without the task ``base``; of a static bundle, its one task.
        found: the sizes of the model's tables; None: they are found by a run.
        base_onnx: the ONNX file that the user gave as the base, if any: it and the ``genai_config.json`` beside it
            count as parts of the base.
        off: see `compare_tasks`.
        homes: the adapter's folders that have a tokenizer: each must be read as the bundle reads texts.

    Raises:
        BundleError, BaseModelError: a file cannot be read.
    """
    source, *others = [BaseSource(base, home) for home in homes or (None,)]
    found = found or lookups(model)
    models = _models(bundle)
    settings = None if base_onnx is None else base_onnx.with_name("genai_config.json")
    settings = settings if settings is not None and settings.is_file() else None
    graph = models["model.onnx"].graph
    return [
        *compare_tasks(bundle.manifest, tasks, off),
        *compare_text_limits(bundle, source, found),
        *compare_generation(bundle.manifest, source, model),
        *compare_least_runtime(bundle.manifest, models),
        *compare_stored_types(bundle, models, None if base_onnx is None else ir.load(base_onnx.absolute())),
        *compare_genai(bundle, source, graph, settings, found.words),
        *compare_copied_files(bundle, source),
        *([] if alone(bundle) else compare_chat(bundle, source)),
        *compare_tokenizer(bundle, source, found.longest),
        *(check for other in others for check in compare_tokenizer(bundle, other, found.longest)),
    ]


def _models(bundle: Bundle) -> dict[str, ir.Model]:
    """File -> graph, the main one last."""
    encoder = bundle.manifest.encoder
    names = ["model.onnx"] if encoder is None else [encoder.file, "model.onnx"]
    return {name: ir.load((bundle.path / name).absolute()) for name in names}
