"""What can be held against its source directly, without running the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eptx.bundle import Bundle
from eptx.exporter.trained import Host, Trained, load_trained
from eptx.exporter.validation.base.lookups import lookups
from eptx.exporter.validation.check import Part
from eptx.exporter.validation.contents.files import ExpectedTask, compare_companions
from eptx.exporter.validation.contents.tensors import compare_tensors
from eptx.exporter.validation.reference.files import Truth
from eptx.manifest.names import BASE_TASK


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
        found = lookups(model)
        answers = any(spec.name == "logits" for spec in bundle.manifest.outputs)
        tasks, off = expected_tasks(truth, trained, answers=answers), _off(trained, answers=answers)
        companions = compare_companions(bundle, truth.base, model, tasks, found, base_onnx=base_onnx, off=off)
        return Compared(
            [_method(bundle, trained), *companions, *compare_tensors(bundle, model, touched)], found.longest
        )


def _method(bundle: Bundle, trained: Trained) -> Part:
    said, found = bundle.manifest.method, trained.method.name
    wrong = None if said == found else f"says {said}; the adapter's files are those of {found}"
    return Part("eptx.json: method", "compared", wrong)


def expected_tasks(truth: Truth, trained: Trained, *, answers: bool = True) -> list[ExpectedTask]:
    """The tasks that the bundle must have, but for ``base``, with their labels.

    Args:
        truth: the files.
        trained: the model.
        answers: whether the class gives logits.
    """
    names = truth.files[0].config.get("task_labels") or {}
    found = []
    for name in (name for name in truth.ids if name in truth.tasks):
        if trained.heads is not None:
            labels, given = trained.heads.labels(name), names.get(name)
            problem = _problem(trained.host_of(truth.ids[name]).model.config, labels)
            found.append(ExpectedTask(name, labels, tuple(given) if given else None, problem))
        else:
            found.append(_own(name, trained.host_of(truth.ids[name]), trained, answers))
    return found


def _off(trained: Trained, *, answers: bool) -> list[ExpectedTask] | None:
    """The task base: not where the base alone lacks a module that the adapter brings."""
    if trained.heads is not None or not trained.brings_heads:
        return None
    if not all(host.complete for host in trained.hosts):
        return []
    return [_own(BASE_TASK, trained.host_of(len(trained.tasks)), trained, answers)]


def _own(name: str, host: Host, trained: Trained, answers: bool) -> ExpectedTask:
    """A task with the labels of the class, where an adapter brings what gives them."""
    config = host.model.config
    classes = int(config.num_labels) if answers and "Classification" in type(host.model).__name__ else None
    problem = _problem(config, classes)
    if not answers or not any(other.labelled for other in trained.hosts):
        return ExpectedTask(name, None, None, problem)
    names = tuple(config.id2label[i] for i in range(config.num_labels))
    return ExpectedTask(name, int(config.num_labels), names, problem)


def _problem(config: Any, labels: int | None) -> str | None:
    """What transformers takes logits for, in its loss; of one label there is no choice."""
    if not labels:
        return None
    if config.problem_type and (labels > 1 or config.problem_type != "single_label_classification"):
        return str(config.problem_type)
    return "regression" if labels == 1 else "single_label_classification"
