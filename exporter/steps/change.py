"""Tasks added to a conditioned bundle and removed, from the bundle alone, by the steps of an export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from eptx._one_line import some
from eptx.bundle.origin import Origin, read_origin
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.changes import TensorChange
from eptx.exporter.adapters.task_names import names_of
from eptx.exporter.bases import BaseGraph
from eptx.exporter.bases.passes.kept import named_in_graphs, with_kept
from eptx.exporter.bases.weights.model_class import reads_segments, trained_class
from eptx.exporter.bases.weights.whole import Saved
from eptx.exporter.bundle.record import unnoted
from eptx.exporter.bundle.tokenizer import FILES as TOKENIZER_FILES
from eptx.exporter.bundle.write import Adapted, Inherited
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.options import Precision, options_of
from eptx.exporter.steps.export import adapt_graphs
from eptx.exporter.steps.former import AGAIN, Former
from eptx.manifest.names import BASE_TASK
from eptx.progress import note, step


def added(
    former: Former,
    folders: Sequence[Path],
    *,
    tasks: Sequence[str] | None = None,
    problem_types: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
) -> Adapted:
    """A bundle's graphs with further adapters in them, each a task; to be stored and written.

    Args:
        former: the bundle.
        folders: of adapters on the same base.
        tasks: the names of the new tasks; None: the folders' names.
        problem_types: new task -> how its logits are read, where it is not as the base's configuration says.
        allow_pickle: whether a pickle is read where there are no safetensors.

    Raises:
        UsageError: a name is taken, or names do not fit the adapters.
        AdapterError: files are damaged, or the adapters are of another base.
        BaseModelError: an adapter does not fit the bundle's base.
        NotSupportedError: the bundle does not hold what this needs.
    """
    name, sources = former.bundle.path.name, former.bundle.manifest.sources
    with step("reading the adapter"):
        new = read_adapter(folders, tasks=tasks or names_of(folders), allow_pickle=allow_pickle)
    if new.method != former.method.name:
        raise UsageError(f"{name} holds {former.method.title} adapters; {Path(folders[0]).name} is {new.method}")
    new = former.method.complete(new, None, None)  # refuses what only the base's folder says
    taken = next((task for task in new.tasks if task in former.tasks), None)
    if taken is not None:
        raise UsageError(f"{name} has a task {taken!r} already: name the new one with --task, or remove that one first")
    _check_fits(former, new)
    new = replace(new, changes=_named(former, new))
    own = Origin.of(None, None, folders, ()).adapters
    named = tasks is not None or sources.tasks is not None or len(former.tasks) == 1
    return _adapted(
        former,
        [*former.adapters, new],
        named,
        {**(sources.problem_types or {}), **(problem_types or {})},
        lambda adapters: (*adapters, *own),
    )


def removed(former: Former, tasks: Sequence[str]) -> Adapted:
    """A bundle's graphs without some of its tasks; to be stored and written.

    Raises:
        UsageError: the bundle has no such task, or no others.
    """
    name, sources = former.bundle.path.name, former.bundle.manifest.sources
    unknown = next((task for task in tasks if task not in former.tasks), None)
    if unknown is not None:
        raise UsageError(f"{name} has no task {unknown!r} to remove; it has {', '.join(former.tasks)}")
    kept = [index for index, task in enumerate(former.tasks) if task not in tasks]
    if not kept:
        raise UsageError(f"{name} has no task but {', '.join(former.tasks)}, and a bundle has at least one")
    types = {task: kind for task, kind in (sources.problem_types or {}).items() if task not in tasks}
    return _adapted(
        former,
        [former.adapters[index] for index in kept],
        sources.tasks is not None or len(kept) == 1,
        types,
        lambda adapters: tuple(adapters[index] for index in kept),
    )


def _adapted(
    former: Former,
    adapters: Sequence[Adapter],
    named: bool,
    problem_types: Mapping[str, str],
    folders: Callable[[tuple[str, ...]], tuple[str, ...]],
) -> Adapted:
    """What an export of these adapters makes of the bundle's base.

    Args:
        former: the bundle.
        adapters: of one task or several.
        named: whether the tasks have other names than an export of these folders gives them.
        problem_types: of tasks, where an option said it.
        folders: the adapters' folders as the bundle's own become.
    """
    manifest, origin = former.bundle.manifest, read_origin(former.bundle)
    adapter = former.tasks_of.joined(adapters)
    named_labels = {
        t: own for t, own in (manifest.sources.label_names or {}).items() if t in (BASE_TASK, *adapter.tasks)
    }
    sources = replace(
        manifest.sources,
        tasks=adapter.tasks if named else None,
        problem_types=dict(problem_types) or None,
        label_names=named_labels or None,
    )
    options = replace(
        options_of(manifest),
        precision=cast(Precision, former.record.precision),
        tasks=sources.tasks,
        problem_types=problem_types,
        labels=dict(named_labels.items()),
    )
    name = former.bundle.path.name
    options.check()
    if origin.adapters:  # else nobody knows where the others are
        origin = replace(origin, adapters=folders(origin.adapters))
    result = adapt_graphs(None, adapter, _graphs(former, adapter), options)
    left = next(iter(unnoted(result.graphs)), None)
    if left is not None:
        raise NotSupportedError(f"an adapter changes {left} in a way that {name} has no place for: {AGAIN}")
    return replace(result, former=Inherited(sources, manifest, former.record.named, origin))


def _named(former: Former, new: Adapter) -> dict[str, Mapping[str, TensorChange]]:
    """What new tasks change of tensors, by the names that the bundle has for them."""
    known, form = {tensor for own in former.kept for tensor in own}, former.record.form
    with _told(former):
        return {task: named_in_graphs(own, former.graphs, known, form) for task, own in new.changes.items()}


def _graphs(former: Former, adapter: Adapter) -> list[BaseGraph]:
    """The base's graphs with what the tasks change of tensors."""
    serves_base = any(task.name == BASE_TASK for task in former.bundle.manifest.tasks)
    saved = Saved(adapter.tasks, adapter.changes, serves_base)
    changed = {name for own in adapter.changes.values() for name in own}
    lost = sorted({*former.lost} & changed)
    if lost or (former.bundle.manifest.quantization and {name for own in former.kept for name in own} - changed):
        tensor = lost[0] if lost else "tensors that no other task changes"
        raise NotSupportedError(
            f"{former.bundle.path.name} is quantized, and does not hold the base's {tensor}: {AGAIN}"
        )
    with _told(former):
        return [with_kept(g, saved, own, former.record.form) for g, own in zip(former.graphs, former.kept, strict=True)]


@contextmanager
def _told(former: Former) -> Iterator[None]:
    """Says of what a bundle lacks what else there is to do."""
    try:
        yield
    except NotSupportedError as error:
        raise NotSupportedError(f"{former.bundle.path.name}: {error}: {AGAIN}") from None


def _check_fits(former: Former, new: Adapter) -> None:
    """Refuses an adapter that an export would refuse beside the others, or of which the bundle lacks something.

    Raises:
        NotSupportedError: it is one.
    """
    record, sources, name = former.record, former.bundle.manifest.sources, former.bundle.path.name
    known = [folder.trained_as for folder in record.folders]
    said = [replace(each, saved={}) for each in new.trained_as]
    if not sources.base_onnx and record.pooling is None and any(each not in known for each in said):
        trained_class(former.graphs[-1].config, [*known, *said], headless=False, asked=sources.model_class)
        reads_segments(former.graphs[-1].config, [*known, *said])
    for file in (folder / tokens for folder in new.folders for tokens in TOKENIZER_FILES):
        own = former.bundle.file(file.name)
        if file.is_file() and (own is None or own.read_bytes() != file.read_bytes()):
            raise NotSupportedError(f"{file.parent.name} has another {file.name} than {name}: {AGAIN}")
    unseen = next((module for module in new.module_names if module not in former.modules), None)
    if unseen is not None and not record.named:
        raise NotSupportedError(
            f"no task of {name} adapts {unseen}, and names do not find that in its ONNX base: {AGAIN}"
        )
    bases = {folder.base for folder in record.folders} | {said.base for said in new.trained_as}
    if len(bases - {None}) > 1:
        names = some(sorted(filter(None, bases)))
        note(f"the adapters call their base differently: {names}; eptx validate shows whether all fit")
    rounded = former.tasks_of.reads_base(new)
    if rounded is not None and former.rounded:
        raise NotSupportedError(
            f"the update of {rounded} is computed from the base's weights, which {name} holds in fewer bits: {AGAIN}"
        )
