"""The trained model for tests: loaded as validation loads it, asked for rows of any tasks at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from eptx.exporter import Route
from eptx.exporter.trained import Output, Trained, load_trained, name_tasks, read_files
from eptx.exporter.trained.reference import GivenRoutes

Ids = np.ndarray | Sequence[int]
Routes = Route | Sequence[Route] | None
Routing = Literal["batch", "row"]


def trained_model(
    base: Path,
    folders: Sequence[Path],
    *,
    top_k: int | None = None,
    tasks: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Trained:
    """The model of these adapter folders, its tasks named as the files name them unless they are given."""
    files = read_files(folders)
    return load_trained(base, files, name_tasks(files, tasks), top_k=top_k, dtype=dtype)


def by_task(
    trained: Trained,
    inputs: Mapping[str, np.ndarray],
    ids: Ids | None = None,
    *,
    route: Routes = None,
    routing: Routing = "batch",
    cache: Any = None,
    frozen: Sequence[Routes] | None = None,
) -> Output:
    """One forward for the rows of each task, apart from the others', put together again in the rows' order.

    TuckA's tasks differ in their heads alone: where a route is the batch's, its rows stay together.

    Args:
        trained: the model.
        inputs: by name, the first axis the rows'.
        ids: task id of each row; None: task 0.
        route: TuckA: a route for all, or one per row. routing: TuckA. cache: for rows of one task.
        frozen: TuckA: for each call of the router a route for all, or one per row, or None: its own.
    """
    rows = len(next(iter(inputs.values())))
    tasks = np.zeros(rows, np.int64) if ids is None else np.asarray(ids)
    assert len(tasks) == rows
    groups = [np.flatnonzero(tasks == task) for task in dict.fromkeys(tasks.tolist())]
    told = route is not None or frozen is not None
    if len(groups) == 1 or (trained.method.name == "tucka" and not told and routing == "batch"):
        return trained.run(inputs, tasks, route=route, routing=routing, cache=cache, frozen=frozen)
    assert cache is None
    parts = [
        trained.run(
            {n: a[own] for n, a in inputs.items()},
            tasks[own],
            route=_of(route, own),
            routing=routing,
            frozen=None if frozen is None else [_of(each, own) for each in frozen],
        )
        for own in groups
    ]
    order = np.argsort(np.concatenate(groups))

    def joined(name: str) -> dict[str, np.ndarray]:
        found = [getattr(part, name) for part in parts]
        keys = [key for key in found[0] if all(key in each for each in found)]
        return {key: _stack([each[key] for each in found], groups)[order] for key in keys}

    return replace(
        parts[0],
        outputs=joined("outputs"),
        inner=joined("inner"),
        modules=joined("modules"),
        task=np.concatenate([part.task for part in parts])[order],
    )


@contextmanager
def as_task(trained: Trained, ids: Ids, *, route: Routes = None, routing: Routing = "batch") -> Iterator[Any]:
    """transformers' model with the adapter of some rows' tasks on, for its own `generate`."""
    tasks = torch.as_tensor(np.asarray(ids), dtype=torch.int64)
    host = trained.host_of(int(tasks[0]))
    off = bool((tasks == len(trained.tasks)).all())
    with torch.no_grad(), host.on(None if off else int(tasks[0])):
        trained._set(host, tasks, GivenRoutes(trained.dtype, route, routing))
        yield host.model


def more_kernels(adapter: Path, out: Path) -> Path:
    """An EPT adapter's folder with two kernels more in each module than its gate serves."""
    shutil.copytree(adapter, out)
    tensors = load_file(out / "adapter_model.safetensors")
    modules = {name.rpartition(".")[0] for name in tensors if ".lora_expert_kernels." in name}
    for module, number in product(sorted(modules), (8, 9)):
        tensors[f"{module}.{number}"] = np.full_like(tensors[f"{module}.{number - 8}"], 3.0)
    save_file(tensors, out / "adapter_model.safetensors")
    return out


def _of(route: Routes, rows: np.ndarray) -> Routes:
    return route if route is None or isinstance(route, Route) else [route[row] for row in rows]


def _stack(arrays: Sequence[np.ndarray], groups: Sequence[np.ndarray]) -> np.ndarray:
    """Rows below each other: what a group's rows share once for each, fewer labels ended by zeros."""
    width = max(array.shape[-1] for array in arrays)
    rows = [np.broadcast_to(a, (len(g), *a.shape[1:])) for a, g in zip(arrays, groups, strict=True)]
    return np.concatenate([np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, width - a.shape[-1])]) for a in rows])
