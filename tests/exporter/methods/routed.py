"""What a bundle must give whose modules have a router each: live, and with the weights fixed that data has shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import eptx
from eptx.calibration import Search
from eptx.exporter import ExportOptions
from eptx.runtime.measure import Source
from tests.exporter.methods.family import Small, tensors_of
from tests.matrix.cell import CALLS
from tests.matrix.row import Arrays

#: Module -> how much each of its experts counted, [positions, experts]; or the weights that they are to have [experts].
Weights = Mapping[str, np.ndarray]
#: From inputs to the outputs of the trained model; with weights, by these.
Run = Callable[[Arrays, Weights | None], dict[str, np.ndarray]]
TASKS = ("a", "b")


def outputs(model: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    """Of the trained model, as it stands."""
    with torch.no_grad():
        return tensors_of(model(**{name: torch.from_numpy(array) for name, array in inputs.items()}))


def compare_live(small: Small, base: Path, adapter: Path, inputs: Arrays, wanted: Mapping[str, np.ndarray]) -> str:
    """Exports with the routers in the graph, compares with kernels and with bodies, validates; the method's name."""
    out = adapter.parent / "dynamic"
    bundle = eptx.export(base, adapter, out, ExportOptions(mode="dynamic"))
    key = next(iter(wanted))
    kept: Any = inputs["attention_mask"] == 1 if small.call != "encoder-decoder" else slice(None)
    found = CALLS[small.call](bundle, inputs, None, [task.name for task in bundle.manifest.tasks])[key]
    assert np.abs(found - wanted[key])[kept].max() <= 2e-5 * max(1, np.abs(wanted[key]).max())
    assert eptx.validate(out).passed
    return bundle.manifest.method


def rows_of(seed: int, count: int = 6) -> list[dict[str, Any]]:
    """Rows of token ids, none of them padded."""
    rng = np.random.default_rng(seed)
    return [{"input_ids": rng.integers(5, 60, rng.integers(3, 9)).tolist()} for _ in range(count)]


def compare_fixed(base: Path, adapter: Path, run: Run, seen: Callable[[], Weights]) -> None:
    """Exports with fixed weights, conditioned and static, and compares; of an encoder.

    Args:
        base: its folder.
        adapter: the adapter.
        run: the trained model.
        seen: what its routers have said in the last run, by module.
    """
    data = {task: rows_of(seed) for seed, task in enumerate(TASKS)}
    lines = [{"task": task, **row} for task, rows in data.items() for row in rows]
    search = Search(data=[Source(lines)], only="fp32")
    names = {"tasks": TASKS, "precision": search}
    bundle = eptx.export(base, adapter, adapter.parent / "conditioned", ExportOptions(mode="conditioned", **names))
    means, inputs = {}, inputs_of(rows_of(9, 1)[0])
    for task, rows in data.items():
        said = []
        for row in rows[::2]:  # those that fix the weights; the others measure what that costs
            run(inputs_of(row), None)
            said.append({module: array.mean(0) for module, array in seen().items()})
        means[task] = {module: np.mean([each[module] for each in said], axis=0) for module in said[0]}
        wanted = run(inputs, means[task])["last_hidden_state"]
        found = eptx.Session(bundle.path).run(inputs, task)["last_hidden_state"]
        assert np.abs(found - wanted).max() <= 2e-5 * max(1, np.abs(wanted).max()), task
        error = bundle.manifest.route["frozen_error"][task]  # type: ignore[index]
        both = [[run(inputs_of(row), weights) for weights in (None, means[task])] for row in rows[1::2]]
        lost = [np.abs(live["last_hidden_state"] - fixed["last_hidden_state"]).max() for live, fixed in both]
        np.testing.assert_allclose(error["max_abs"], max(lost), rtol=1e-4)
        assert error["max_abs"] > 1e-3
    assert not np.allclose(*(next(iter(own.values())) for own in means.values()), atol=1e-4)
    assert eptx.validate(bundle.path).passed
    off = eptx.Session(bundle.path).run(inputs, "base")["last_hidden_state"]
    plain = run(inputs, {module: np.zeros_like(own) for module, own in means["a"].items()})["last_hidden_state"]
    assert np.abs(off - plain).max() <= 2e-5 * max(1, np.abs(plain).max())
    options = ExportOptions(mode="static", task="b", **names)
    static = eptx.export(base, adapter, adapter.parent / "static", options)
    found = eptx.Session(static.path).run(inputs)["last_hidden_state"]
    wanted = run(inputs, means["b"])["last_hidden_state"]
    assert np.abs(found - wanted).max() <= 2e-5 * max(1, np.abs(wanted).max())
    assert eptx.validate(static.path).passed


def inputs_of(row: Mapping[str, Any]) -> Arrays:
    ids = np.array([row["input_ids"]], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
