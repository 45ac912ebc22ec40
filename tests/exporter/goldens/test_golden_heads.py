"""Goldens of the released codes with what their scripts and PEFT save beside the adapter: heads, norms, lm_head.

Through functions and native kernels, with the graph optimizer on and off; then validated.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions, Route
from tests.exporter.goldens.by_proof import passes
from tests.exporter.goldens.test_goldens import GOLDEN, _close, _run, _sessions
from tests.support.decoders import write_tokenizer

#: tucka_glue is DeBERTa, whose two routes are tested in test_deberta.py.
TUCKA = ("tucka_vit_cifar_cls", "tucka_clip_imagecls")


def _case(name: str) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]]:
    folder = GOLDEN / name
    with np.load(folder / "golden.npz") as arrays:
        return folder, json.loads((folder / "case.json").read_text()), dict(arrays)


def _inputs(arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    count = len({key.partition(".")[0] for key in arrays if key.startswith("in")})
    return [
        {key.partition(".")[2]: array for key, array in arrays.items() if key.startswith(f"in{index}.")}
        for index in range(count)
    ]


def _follows(bundle: Bundle, arrays: dict[str, np.ndarray], *, static: bool) -> None:
    """Logits of rows of mixed tasks, or of task 3 in a static bundle, are the golden's."""
    for session in _sessions(bundle):
        for index, feeds in enumerate(_inputs(arrays)):
            rows = len(feeds["input_ids"])
            outs = [*(arrays[f"out{index}.task{t}.logits"] for t in range(8)), arrays[f"base{index}.logits"]]
            ids = (np.arange(rows) * 5 + 3) % 9
            want = outs[3] if static else np.stack([outs[t][row] for row, t in enumerate(ids)])
            _close(_run(session, feeds, task_id=ids)["logits"], want)


@pytest.mark.parametrize("mode", ["static", "conditioned", "dynamic"])
def test_ept_with_a_classifier(tmp_path: Path, mode: Any) -> None:
    """All tasks share it; rows of `base` read the base's."""
    folder, settings, arrays = _case("ept_bert_seqcls")
    task = "task3" if mode == "static" else None
    options = ExportOptions(mode=mode, top_k=settings["top_k"], task=task)
    bundle = export_bundle(folder / "base", [folder / "adapter"], tmp_path / "b", options)
    assert [task.labels for task in bundle.manifest.tasks] == [3] * (1 if task else 9)
    _follows(bundle, arrays, static=mode == "static")
    passes(bundle)


@pytest.mark.parametrize("mode", ["static", "conditioned", "dynamic"])
@pytest.mark.parametrize("name", TUCKA)
def test_tucka_on_images(tmp_path: Path, name: str, mode: Any) -> None:
    folder, _, arrays = _case(name)
    batches = _inputs(arrays)
    for index, feeds in enumerate(batches if mode != "dynamic" else batches[:1]):
        weights = tuple(map(float, arrays[f"out{index}.weights"]))
        routes = {} if mode == "dynamic" else {None: Route(int(arrays[f"out{index}.group"]), weights)}
        options = ExportOptions(mode=mode, routes=routes)
        bundle = export_bundle(folder / "base", [folder / "adapter"], tmp_path / str(index), options)
        for session in _sessions(bundle):
            for other, each in enumerate(batches if mode == "dynamic" else []):
                _close(session.run(["logits"], _images(each))[0], arrays[f"out{other}.logits"])
            if mode == "dynamic":
                continue
            rows = len(feeds["pixel_values"])
            ids = {"task_id": np.zeros(rows, np.int64)} if mode == "conditioned" else {}
            _close(session.run(["logits"], {**_images(feeds), **ids})[0], arrays[f"out{index}.logits"])
            if ids:
                off = session.run(["logits"], {**_images(feeds), "task_id": np.ones(rows, np.int64)})[0]
                _close(off, arrays[f"base{index}.logits"])
    passes(bundle)


def _images(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float32) for name, array in feeds.items()}


@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_ept_with_norms_and_lm_head(tmp_path: Path, mode: Any) -> None:
    folder, settings, arrays = _case("ept_llama_modules")
    base = Path(shutil.copytree(folder / "base", tmp_path / "base"))
    write_tokenizer(base, 110)
    task = "task3" if mode == "static" else None
    options = ExportOptions(mode=mode, top_k=settings["top_k"], task=task)
    bundle = export_bundle(base, [folder / "adapter"], tmp_path / "b", options)
    _follows(bundle, arrays, static=mode == "static")
    passes(bundle)
