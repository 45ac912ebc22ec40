"""Compares everything that a bundle holds with its sources, without running the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eptx.bundle import Bundle
from eptx.exporter.trained import Host, Trained
from eptx.exporter.validation.base.lookups import lookups
from eptx.exporter.validation.check import Check
from eptx.exporter.validation.contents.files import ExpectedTask, compare_files
from eptx.exporter.validation.contents.tensors import compare_tensors
from eptx.exporter.validation.reference.files import ReferenceFiles
from eptx.manifest.names import BASE_TASK


@dataclass(frozen=True)
class Compared:
    """The comparison.

    Attributes:
        checks: of every part.
        longest: the most tokens of a row that the trained model reads; None without a limit.
    """

    checks: list[Check]
    longest: int | None


def compare_contents(bundle: Bundle, reference: ReferenceFiles, base_onnx: Path | None = None) -> Compared:
    """Loads the trained model in float32 and compares manifest, files and tensors with it.

    Args:
        bundle: the bundle.
        reference: the trained model's files.
        base_onnx: the ONNX file of the base, where the export used one.
    """
    trained = reference.load(torch.float32)
    task = next(iter(reference.ids.values()))
    touched = trained.hosts[0].names.values() if bundle.manifest.mode == "static" else ()
    with trained.as_task(task) as model:
        encoder = bundle.manifest.encoder
        found = lookups(model, bundle.manifest.inputs if encoder is None else encoder.inputs)
        answers = any(spec.name == "logits" for spec in bundle.manifest.outputs)
        tasks, off = expected_tasks(reference, trained, answers=answers), _off(trained, answers=answers)
        files = compare_files(bundle, reference.base, model, tasks, found, base_onnx=base_onnx, off=off)
        return Compared([_method(bundle, trained), *files, *compare_tensors(bundle, model, touched)], found.longest)


def _method(bundle: Bundle, trained: Trained) -> Check:
    said, found = bundle.manifest.method, trained.method.name
    wrong = None if said == found else f"says {said}; the adapter's files are those of {found}"
    return Check("eptx.json: method", "compared", wrong)


def expected_tasks(reference: ReferenceFiles, trained: Trained, *, answers: bool = True) -> list[ExpectedTask]:
    """The tasks that the bundle must have, except ``base``, with their labels.

    Args:
        reference: the files.
        trained: the model.
        answers: whether the class gives logits.
    """
    names = reference.files[0].config.get("task_labels") or {}
    found = []
    for name in (name for name in reference.ids if name in reference.tasks):
        if trained.heads is not None:
            labels, given = trained.heads.labels(name), names.get(name)
            problem = _problem(trained.host_of(reference.ids[name]).model.config, labels)
            found.append(ExpectedTask(name, labels, tuple(given) if given else None, problem))
        else:
            found.append(_own(name, trained.host_of(reference.ids[name]), trained, answers))
    return found


def _off(trained: Trained, *, answers: bool) -> list[ExpectedTask] | None:
    """The task ``base``: none if the base alone lacks a module that the adapter brings."""
    if trained.heads is not None or not trained.brings_heads:
        return None
    if not all(host.base.complete for host in trained.hosts):
        return []
    return [_own(BASE_TASK, trained.host_of(len(trained.tasks)), trained, answers)]


def _own(name: str, host: Host, trained: Trained, answers: bool) -> ExpectedTask:
    """A task with the labels of the trained class, if the adapter brings the layer that gives them."""
    config = host.model.config
    classes = int(config.num_labels) if answers and "Classification" in type(host.model).__name__ else None
    problem = _problem(config, classes)
    if not answers or not any(other.base.labelled for other in trained.hosts):
        return ExpectedTask(name, None, None, problem)
    names = tuple(config.id2label[i] for i in range(config.num_labels))
    return ExpectedTask(name, int(config.num_labels), names, problem)


def _problem(config: Any, labels: int | None) -> str | None:
    """The problem type by which transformers computes the loss; one label leaves no choice."""
    if not labels:
        return None
    if config.problem_type and (labels > 1 or config.problem_type != "single_label_classification"):
        return str(config.problem_type)
    return "regression" if labels == 1 else "single_label_classification"
