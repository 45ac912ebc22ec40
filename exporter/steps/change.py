"""Tasks added to a conditioned bundle and removed, from the bundle alone, by the steps of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from eptx.bundle import Bundle, BundleWriter, Sources, read_bundle
from eptx.bundle.origin import Origin, read_origin
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.bases.weights.model_class import trained_class
from eptx.exporter.bundle.write import Inherited
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.options import Precision, options_of
from eptx.exporter.steps.export import adapt_graphs, store, write
from eptx.exporter.steps.former import Former, take_apart
from eptx.progress import step


def add_tasks(
    bundle: Path,
    adapters: Sequence[Path],
    out: Path,
    *,
    tasks: Sequence[str] | None = None,
    problem_types: Mapping[str, str] | None = None,
) -> Bundle:
    """Puts further adapters on a conditioned bundle, without its base: the bundle of an export of all of them.

    Args:
        bundle: of LoRA adapters.
        adapters: folders of LoRA adapters on the same base, each a task.
        out: folder of the new bundle; an existing bundle is replaced in one step, also the one that is read.
        tasks: the names of the new tasks.  Default: the folders' names.
        problem_types: new task -> how its logits are read, where it is not as the base's configuration says.

    Returns:
        the new bundle.

    Raises:
        UsageError: a name is taken, or names do not fit the adapters.
        AdapterError, BundleError: files are damaged, or do not fit each other.
        BaseModelError: an adapter does not fit the bundle's base.
        NotSupportedError: the bundle does not hold what this needs.
    """
    with BundleWriter(out) as writer:
        former = _opened(bundle)
        with step("reading the adapter"):
            new = read_adapter(adapters, tasks=tasks or [Path(folder).resolve().name for folder in adapters])
        if new.method != former.method.name:
            raise UsageError(
                f"{Path(adapters[0]).name} is a {new.method} adapter; {bundle.name} holds {former.method.name} adapters"
            )
        taken = next((name for name in new.tasks if name in former.tasks), None)
        if taken is not None:
            raise UsageError(f"{bundle.name} has a task {taken!r}: give the new one another name with --task")
        _check_class(former, new)
        _check_places(former, new)
        _check_saved(former, new)
        named = bool(tasks) or former.bundle.manifest.sources.tasks is not None or len(former.tasks) == 1
        names = (*former.tasks, *new.tasks)
        adapter = former.task_by_task.joined([*former.adapters, _exact(former, new)])
        sources = replace(
            former.bundle.manifest.sources,
            tasks=names if named else None,
            problem_types={**(former.bundle.manifest.sources.problem_types or {}), **(problem_types or {})} or None,
        )
        origin = read_origin(former.bundle)
        if origin.adapters:
            origin = replace(origin, adapters=(*origin.adapters, *Origin.of(None, None, adapters, ()).adapters))
        return _written(writer, former, adapter, sources, origin)


def remove_tasks(bundle: Path, tasks: Sequence[str], out: Path) -> Bundle:
    """Takes tasks out of a conditioned bundle, without its base: the bundle of an export of the others.

    Args:
        bundle: of LoRA adapters.
        tasks: names of tasks that it has.
        out: folder of the new bundle; an existing bundle is replaced in one step, also the one that is read.

    Returns:
        the new bundle.

    Raises:
        UsageError: the bundle has no such task, or no others.
        BundleError: files are damaged, or do not fit each other.
        NotSupportedError: the bundle does not hold what this needs.
    """
    with BundleWriter(out) as writer:
        former = _opened(bundle)
        unknown = next((name for name in tasks if name not in former.tasks), None)
        if unknown is not None:
            raise UsageError(f"{bundle.name} has no task {unknown!r} to remove; it has {', '.join(former.tasks)}")
        kept = [index for index, name in enumerate(former.tasks) if name not in tasks]
        if not kept:
            raise UsageError(f"{bundle.name} has no other task: a bundle has at least one")
        adapter = former.task_by_task.joined([former.adapters[index] for index in kept])
        names = tuple(former.tasks[index] for index in kept)
        own = former.bundle.manifest.sources
        types = {task: kind for task, kind in (own.problem_types or {}).items() if task in names}
        named = own.tasks is not None or len(names) == 1
        sources = replace(own, tasks=names if named else None, problem_types=types or None)
        origin = read_origin(former.bundle)
        if origin.adapters:
            origin = replace(origin, adapters=tuple(origin.adapters[index] for index in kept))
        return _written(writer, former, adapter, sources, origin)


def _opened(path: Path) -> Former:
    with step("reading the bundle"):
        return take_apart(read_bundle(path))


def _written(writer: BundleWriter, former: Former, adapter: Adapter, sources: Sources, origin: Origin) -> Bundle:
    """The rest of an export."""
    manifest = former.bundle.manifest
    options = replace(
        options_of(manifest),
        precision=cast(Precision, former.record.precision),
        tasks=sources.tasks,
        problem_types=sources.problem_types or {},
    )
    options.check()
    if manifest.quantization is not None:
        raise NotSupportedError(f"{former.bundle.path.name} is quantized")
    adapted = adapt_graphs(None, adapter, former.graphs, options)
    adapted = replace(adapted, former=Inherited(sources, manifest.text, origin))
    store(adapted)
    return write(writer, adapted)


def _check_class(former: Former, new: Adapter) -> None:
    """Refuses an adapter that was trained on another class than the others.

    Raises:
        NotSupportedError: it was.
    """
    known = [folder.trained_as for folder in former.record.folders]
    if not former.bundle.manifest.sources.base_onnx and any(said not in known for said in new.trained_as):
        trained_class(former.graphs[-1].config, [*known, *new.trained_as], headless=False)  # imports transformers


def _check_places(former: Former, new: Adapter) -> None:
    """Refuses modules that nothing in the bundle finds for sure.

    Raises:
        NotSupportedError: there are some.
    """


def _check_saved(former: Former, new: Adapter) -> None:
    if new.heads is not None or new.saved:
        raise NotSupportedError("heads")


def _exact(former: Former, new: Adapter) -> Adapter:
    """The adapter, if it needs no weight of the base that the bundle has rounded."""
    return new
