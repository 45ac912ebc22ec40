"""A tiny model with one layer that 8 bits ruin for one task only.

A channel of the last feed-forward layer is dead: it never fires. Its weights to the first few features are multiplied
until they are all that 8 bits can tell apart in these features, so quantizing this layer, and nothing else, takes the
rest of these features' weights away. In float32 nothing changes. One task's head reads these features, others do not.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.runtime import Session
from tests.exporter.validation.adapters import HEADS, add_heads, linear_shapes, write_ept

TINY = Path(__file__).resolve().parents[1] / "golden" / "ept_bert48" / "base"
TASKS = ("ruined", "first", "second")
#: What is planted, as a graph names it.
LAYER = "encoder.layer.1.output.dense"
_FEATURES, _DEAD, _SCALE = 4, 3, 20


def planted_base(folder: Path) -> Path:
    """The tiny BERT with the plant in it."""
    shutil.copytree(TINY, folder)
    path = folder / "model.safetensors"
    weights = {name: np.array(array) for name, array in load_file(path).items()}
    name = next(name for name in weights if name.endswith(f"{LAYER}.weight"))
    inner = name.replace("output.dense", "intermediate.dense")
    weights[inner][_DEAD] = 0
    weights[inner.replace("weight", "bias")][_DEAD] = -30  # gelu(-30) is 0
    weights[name][:_FEATURES] *= _SCALE  # these features are what this layer makes of them
    weights[name][:_FEATURES, _DEAD] = 2000 * np.abs(weights[name]).max()
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def planted_adapter(folder: Path, base: Path) -> Path:
    """EPT with a head that reads the planted features, and two that read the others."""
    write_ept(folder, linear_shapes(base, ("query", "value")), seed=5, strength=0.05)
    hidden = 48
    add_heads(folder, dict.fromkeys(TASKS, 3), hidden, seed=7)
    heads = {name: np.array(array) for name, array in load_file(folder / HEADS).items()}
    for task in TASKS:
        unread = slice(_FEATURES, None) if task == "ruined" else slice(0, _FEATURES)
        heads[f"{task}.weight"][:, unread] = 0
        heads[f"{task}.weight"] *= 4
        heads[f"{task}.bias"][:] = 0
    save_file(heads, folder / HEADS)
    return folder


def answered_rows(base: Path, adapter: Path, folder: Path, count: int = 60) -> list[dict[str, object]]:
    """Random rows with the labels that the float32 model gives them: its accuracy is 1.

    Biases are moved until every label is given about as often; of the tasks that are to stay well, rows whose answer
    is a near tie are left out.
    """
    session = _session(base, adapter, folder / "uneven")
    rng = np.random.default_rng(3)
    texts = {task: [rng.integers(5, 90, rng.integers(4, 12)).tolist() for _ in range(2 * count)] for task in TASKS}
    logits = {task: np.array([_logits(session, ids, task) for ids in own]) for task, own in texts.items()}
    heads = {name: np.array(array) for name, array in load_file(adapter / HEADS).items()}
    rows: list[dict[str, object]] = []
    for task, found in logits.items():
        heads[f"{task}.bias"] -= found.mean(0).astype(np.float32)
        even = found - found.mean(0)
        margin = np.sort(even, axis=1)[:, -1] - np.sort(even, axis=1)[:, -2]
        kept = np.arange(count) if task == "ruined" else np.sort(np.argsort(-margin)[:count])
        rows += [{"task": task, "input_ids": texts[task][i], "label": int(even[i].argmax())} for i in kept.tolist()]
    save_file(heads, adapter / HEADS)
    return rows


def _session(base: Path, adapter: Path, folder: Path) -> Session:
    return Session(export_bundle(base, [adapter], folder, ExportOptions(mode="conditioned", top_k=2)))


def _logits(session: Session, ids: Sequence[int], task: str) -> np.ndarray:
    return session.run({"input_ids": [list(ids)], "attention_mask": [[1] * len(ids)]}, task).logits[0]
