"""Compares everything that a bundle holds with its sources, without running the bundle."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eptx.bundle import Bundle
from eptx.exporter.trained import Host, Trained
from eptx.exporter.trained.reference import kind_of
from eptx.exporter.validation.base.lookups import Lookups, lookups
from eptx.exporter.validation.contents.embedding import compare_embedding
from eptx.exporter.validation.contents.files import ExpectedTask, compare_files
from eptx.exporter.validation.contents.images import compare_images
from eptx.exporter.validation.contents.label_names import base_names, trained_names
from eptx.exporter.validation.contents.model_class import compare_class
from eptx.exporter.validation.contents.tensors import compare_tensors
from eptx.exporter.validation.reference.files import ReferenceFiles
from eptx.manifest.names import BASE_TASK
from eptx.runtime.validation.check import Check


@dataclass(frozen=True)
class Compared:
    """The comparison.

    Attributes:
        checks: of every part.
        found: the sizes of the trained model's tables.
    """

    checks: list[Check]
    found: Lookups


def compare_contents(bundle: Bundle, reference: ReferenceFiles, base_onnx: Path | None = None) -> Compared:
    """Loads the trained model in float32 and compares manifest, files and tensors with it.

    Args:
        bundle: the bundle.
        reference: the trained model's files.
        base_onnx: the ONNX file of the base, where the export used one.
    """
    trained = reference.load(torch.float32)
    task = next(iter(reference.ids.values()))
    touched = trained.changed_tensors if bundle.manifest.mode == "static" else ()
    tables = {index: trained.tables(index) for index in reference.ids.values()}
    stacks: dict[str, np.ndarray] = {}
    if bundle.manifest.mode == "static":
        tables = {0: tables[task]}
        stacks = trained.stacks(task)
    with trained.as_task(task) as model:
        encoder = bundle.manifest.encoder
        found = lookups(model, bundle.manifest.inputs if encoder is None else encoder.inputs)
        if found.words is not None:
            counts = trained.words(reference.ids)
            most = found.words = max([found.words, *counts.values()])
            found.of_tasks = {name: count for name, count in counts.items() if count < most}
        answers = any(spec.name == "logits" for spec in bundle.manifest.outputs)
        told = set(bundle.manifest.sources.label_names or ())
        tasks = expected_tasks(reference, trained, answers=answers, told=told)
        off = _off(reference, trained, answers, told)
        files = compare_files(
            bundle, reference.base, model, tasks, found, base_onnx=base_onnx, off=off, homes=reference.homes
        )
        first = [_method(bundle, reference), *compare_class(bundle.manifest, reference)]
        first += compare_embedding(bundle.manifest, trained.sentence)
        first += compare_images(bundle, reference.base, [Path(folder) for folder in reference.folders])
        return Compared([*first, *files, *compare_tensors(bundle, model, touched, tables, stacks)], found)


def _method(bundle: Bundle, reference: ReferenceFiles) -> Check:
    said, found = bundle.manifest.method, kind_of(reference.files)
    wrong = None if said == found else f"says {said}; the adapter's files are those of {found}"
    return Check("eptx.json: method", "compared", wrong)


def expected_tasks(
    reference: ReferenceFiles, trained: Trained, *, answers: bool = True, told: Collection[str] = ()
) -> list[ExpectedTask]:
    """The tasks that the bundle must have, except ``base``, with their labels.

    Args:
        reference: the files.
        trained: the model.
        answers: whether the class gives logits.
        told: the tasks whose labels an option of the export named.
    """
    found = []
    for name in (name for name in reference.ids if name in reference.tasks):
        host = trained.host_of(reference.ids[name])
        if trained.heads is not None:
            labels = trained.heads.labels(name)
            found.append(_named(reference, name, labels, None, _problem(host.model.config, labels)))
        else:
            found.append(_own(reference, name, host, trained, answers, told))
    return found


def _off(reference: ReferenceFiles, trained: Trained, answers: bool, told: Collection[str]) -> list[ExpectedTask]:
    """The task ``base``: none if the base alone lacks a module that the adapter brings, as it lacks task heads."""
    if trained.heads is not None:  # none of them reads its rows, which then say nothing but an embedding
        return [] if trained.sentence is None else [ExpectedTask(BASE_TASK, 0, None)]
    if trained.brings_heads and not all(host.base.complete for host in trained.hosts):
        return []
    return [_own(reference, BASE_TASK, trained.host_of(len(trained.tasks)), trained, answers, told)]


def _own(
    reference: ReferenceFiles, name: str, host: Host, trained: Trained, answers: bool, told: Collection[str]
) -> ExpectedTask:
    """A task with the labels of the trained class, if the adapter brings their layer or they have names."""
    config = host.model.config
    count = int(config.num_labels)
    classes = count if answers and "Classification" in type(host.model).__name__ else None
    problem = _problem(config, classes)
    if answers and any(other.base.labelled for other in trained.hosts):
        return _named(reference, name, count, config, problem)
    if classes is None:
        return ExpectedTask(name, None, None, problem)
    task = _named(reference, name, classes, config, problem)
    return task if task.label_names is not None or name in told else replace(task, labels=None)


def _named(reference: ReferenceFiles, name: str, count: int, config: Any, problem: str | None) -> ExpectedTask:
    """A task with the names of its labels: those that the user gives, or else those of the trained files."""
    said = reference.said.label_names.get(name)
    if said is not None:
        return ExpectedTask(name, count, tuple(said), problem, given=True)
    if name == BASE_TASK:
        own = [each for each in (base_names(config, count),) if each]
        return ExpectedTask(name, count, own[0] if own else None, problem)
    several = len(reference.files) > 1
    files = reference.files[reference.tasks.index(name) if several else 0]
    names = trained_names(files, name, several or len(reference.tasks) == 1, count, config)
    return ExpectedTask(name, count, names, problem)


def _problem(config: Any, labels: int | None) -> str | None:
    """The problem type by which transformers computes the loss; one label leaves no choice."""
    if not labels:
        return None
    if config.problem_type and (labels > 1 or config.problem_type != "single_label_classification"):
        return str(config.problem_type)
    return "regression" if labels == 1 else "single_label_classification"
