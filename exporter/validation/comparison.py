"""What can be held against its source directly, without running the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eptx.bundle import Bundle
from eptx.exporter.trained import Trained, load_trained
from eptx.exporter.validation.companions import ExpectedTask, compare_companions, lookups
from eptx.exporter.validation.parts import Part
from eptx.exporter.validation.sources import Truth
from eptx.exporter.validation.tensors import compare_tensors

#: How PEFT's own classes call the layer that gives labels.
_LABELLERS = ("classifier", "score")


@dataclass(frozen=True)
class Compared:
    """What was compared.

    Attributes:
        parts: one by one.
        longest: the most tokens of a row that the trained model reads; None where nothing limits it.
    """

    parts: list[Part]
    longest: int | None


def compare_parts(bundle: Bundle, truth: Truth, base_onnx: Path | None = None) -> Compared:
    """Loads the trained model in float32 and compares: manifest, files, tables, constants.

    Args:
        bundle: the bundle.
        truth: the trained model's files.
        base_onnx: the ONNX file of the base, where the export used one.
    """
    trained = load_trained(truth.base, truth.files, truth.tasks, top_k=truth.top_k, dtype=torch.float32)
    task = next(iter(truth.ids.values()))
    touched = trained.hosts[0].names.values() if bundle.manifest.mode == "static" else ()
    with trained.as_task(task) as model:
        found, tasks = lookups(model), expected_tasks(truth, trained)
        companions = compare_companions(bundle, truth.base, model, tasks, found, base_onnx=base_onnx)
        return Compared(
            [_method(bundle, trained), *companions, *compare_tensors(bundle, model, touched)], found.longest
        )


def _method(bundle: Bundle, trained: Trained) -> Part:
    said = bundle.manifest.method
    wrong = None if said == trained.kind else f"says {said}; the adapter's files are those of {trained.kind}"
    return Part("eptx.json: method", "compared", wrong)


def expected_tasks(truth: Truth, trained: Trained) -> list[ExpectedTask]:
    """The tasks that the bundle must have, but for ``base``, with their labels."""
    names = truth.files[0].config.get("task_labels") or {}
    found = []
    for name in (name for name in truth.ids if name in truth.tasks):
        labels = trained.heads.labels(name) if trained.heads is not None else _own_labels(trained, truth.ids[name])
        given = names.get(name)
        config = trained.host_of(truth.ids[name]).model.config
        problem = _problem(config, labels if labels is not None else _classes(config))
        found.append(ExpectedTask(name, labels, tuple(given) if given else None, problem))
    return found


def _classes(config: Any) -> int | None:
    """How many labels a base's own classifier has; None without one."""
    named = [str(name) for name in config.architectures or ()]
    return int(config.num_labels) if any("Classification" in name for name in named) else None


def _problem(config: Any, labels: int | None) -> str | None:
    """What transformers takes logits for, in its loss; of one label there is no choice."""
    if not labels:
        return None
    if config.problem_type and (labels > 1 or config.problem_type != "single_label_classification"):
        return str(config.problem_type)
    return "regression" if labels == 1 else "single_label_classification"


def _own_labels(trained: Trained, task: int) -> int | None:
    """How many labels a task's own classifier has, where the adapter brings one."""
    host = trained.host_of(task)
    brought = any(part in host.saved for part in _LABELLERS)
    return int(host.model.config.num_labels) if brought else None
