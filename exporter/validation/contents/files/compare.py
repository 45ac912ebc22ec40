"""Everything beside the numbers of a model: each part held to the file or the loader that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from eptx.bundle import Bundle
from eptx.exporter.validation.base.lookups import Lookups, lookups
from eptx.exporter.validation.base.source import BaseSource
from eptx.exporter.validation.check import Part
from eptx.exporter.validation.contents.files.chat_template import compare_chat
from eptx.exporter.validation.contents.files.copied import alone, compare_files
from eptx.exporter.validation.contents.files.genai_config import compare_genai
from eptx.exporter.validation.contents.files.generation import compare_generation
from eptx.exporter.validation.contents.files.stored_types import compare_stored_types
from eptx.exporter.validation.contents.files.tasks import ExpectedTask, compare_tasks
from eptx.exporter.validation.contents.files.text_limits import compare_reads
from eptx.exporter.validation.contents.files.tokenizer import compare_tokenizer


def compare_companions(
    bundle: Bundle,
    base: Path,
    model: Any,
    tasks: Sequence[ExpectedTask],
    found: Lookups | None = None,
    *,
    base_onnx: Path | None = None,
    off: Sequence[ExpectedTask] | None = None,
) -> list[Part]:
    """Holds the manifest and the files beside the model to what they were made from.

    Args:
        bundle: the bundle; that its files are those that it lists was checked.
        base: the base's transformers folder.
        model: the base as transformers loads it, in the class that was trained, adapted or not; it is not changed.
        tasks: what was trained, by id; of a static bundle the one task that it holds. The task base is not among them.
        found: what the model looks up; None: it is asked.
        base_onnx: the ONNX file that the user gave as the base, if so: what it and the ``genai_config.json`` beside it
            say counts as said by the base.
        off: see `compare_tasks`.

    Raises:
        BundleError, BaseModelError: a file cannot be read.
    """
    source = BaseSource(base)
    found = found or lookups(model)
    models = _models(bundle)
    settings = None if base_onnx is None else base_onnx.with_name("genai_config.json")
    settings = settings if settings is not None and settings.is_file() else None
    graph = models["model.onnx"].graph
    return [
        *compare_tasks(bundle.manifest, tasks, off),
        *compare_reads(bundle, source, found),
        *compare_generation(bundle.manifest, source, model),
        *compare_stored_types(bundle, models, None if base_onnx is None else ir.load(base_onnx.absolute())),
        *compare_genai(bundle, source, graph, settings),
        *compare_files(bundle, source),
        *([] if alone(bundle) else compare_chat(bundle, source)),
        *compare_tokenizer(bundle, source, found.longest),
    ]


def _models(bundle: Bundle) -> dict[str, ir.Model]:
    """File -> graph, the main one last."""
    encoder = bundle.manifest.encoder
    names = ["model.onnx"] if encoder is None else [encoder.file, "model.onnx"]
    return {name: ir.load((bundle.path / name).absolute()) for name in names}
