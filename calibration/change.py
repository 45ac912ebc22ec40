"""``eptx add`` and ``eptx remove``: tasks added to a conditioned bundle and removed, from the bundle alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eptx.bundle import Bundle, BundleWriter, read_bundle
from eptx.calibration.quantize.again import quantize_again
from eptx.exporter.bundle.write import Adapted
from eptx.exporter.folders import Adapters
from eptx.exporter.folders.find import find_adapters
from eptx.exporter.steps.change import added, removed
from eptx.exporter.steps.export import store, write
from eptx.exporter.steps.former import Former, take_apart
from eptx.progress import step


def add_tasks(
    bundle: Path,
    adapters: Adapters,
    out: Path,
    *,
    tasks: Sequence[str] | None = None,
    problem_types: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
) -> Bundle:
    """Puts further adapters on a conditioned LoRA bundle, without its base. They may bring heads, norms and biases.

    Args:
        bundle: the bundle's folder.
        adapters: LoRA adapters on the same base, each a task: folders, or ids of the hub, as an export takes them.
        out: the new bundle's folder; an existing bundle is replaced in one step, also the one that is read.
        tasks: the names of the new tasks. Default: the folders' names.
        problem_types: new task -> how its logits are read, where it is not as the base's configuration says.
        allow_pickle: whether an adapter's ``adapter_model.bin`` is read, by torch's ``weights_only`` loader.

    Returns:
        The bundle of an export of all adapters, byte for byte.

    Raises:
        UsageError: a name is taken, or names do not fit the adapters.
        AdapterError, BundleError: files are damaged, or the adapters are of another base.
        BaseModelError: an adapter does not fit the bundle's base.
        NotSupportedError: the bundle does not hold what this needs.
    """
    with BundleWriter(out) as writer:
        folders, former = find_adapters(adapters, allow_pickle=allow_pickle), _opened(bundle)
        new = added(former, folders, tasks=tasks, problem_types=problem_types, allow_pickle=allow_pickle)
        return _write(writer, former, new)


def remove_tasks(bundle: Path, tasks: Sequence[str], out: Path) -> Bundle:
    """Takes tasks out of a conditioned LoRA bundle, without its base.

    Args:
        bundle: the bundle's folder.
        tasks: names of tasks that it has.
        out: the new bundle's folder; an existing bundle is replaced in one step, also the one that is read.

    Returns:
        The bundle of an export of the other tasks' adapters, byte for byte.

    Raises:
        UsageError: the bundle has no such task, or no others.
        BundleError: files are damaged, or do not fit each other.
        NotSupportedError: the bundle does not hold what this needs.
    """
    with BundleWriter(out) as writer:
        former = _opened(bundle)
        return _write(writer, former, removed(former, tasks))


def _opened(path: Path) -> Former:
    with step("reading the bundle"):
        return take_apart(read_bundle(path))


def _write(writer: BundleWriter, former: Former, adapted: Adapted) -> Bundle:
    """Stores the weights as they are stored in the bundle, and writes them."""
    adapted = quantize_again(former, adapted)
    store(adapted)
    return write(writer, adapted)
