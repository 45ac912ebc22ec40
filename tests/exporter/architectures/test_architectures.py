"""Every architecture in every mode, from its transformers folder to ONNX Runtime, against the PyTorch reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from eptx.calibration import export_bundle
from eptx.errors import RequestError
from eptx.exporter import ExportOptions, Route
from eptx.exporter.bases import load_transformers
from eptx.runtime import Session
from tests.exporter.bases.conftest import build
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_lora, write_tucka
from tests.support.trained import by_task, trained_model

TOLERANCE = 2e-5
#: architecture -> which linear layers the adapters take
TARGETS = {
    "bert": ("query", "value", "dense"),
    "roberta": ("query", "value", "intermediate.dense"),
    "vit": ("query", "value", "dense", "q_proj", "v_proj", "fc1"),
    "llama": ("q_proj", "v_proj", "up_proj"),
}
Exported = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Architecture -> its transformers folder and its graph as an ONNX file; each is traced once."""
    made: dict[str, tuple[Path, Path]] = {}

    def get(name: str) -> tuple[Path, Path]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            build(name).save_pretrained(folder)
            onnx = folder.parent / f"{name}.onnx"
            ir.save(load_transformers(folder).model, onnx)
            made[name] = folder, onnx
        return made[name]

    return get


def _inputs(name: str, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    if name == "vit":
        return {"pixel_values": rng.normal(size=(rows, 3, 16, 16)).astype(np.float32)}
    ids = rng.integers(5, 90, size=(rows, 7))
    mask = np.ones_like(ids)
    for row in range(1, rows):
        mask[row, 7 - row % 4 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _compare(bundle: Any, reference: Any, inputs: dict[str, np.ndarray], tasks: list[str] | None, **how: Any) -> None:
    session = Session(bundle)
    names = [task.name for task in bundle.manifest.tasks]
    got = session.run(inputs, task=tasks)
    ids = [names.index(task) for task in tasks] if tasks else None
    want = by_task(reference, inputs, ids, **how)
    kept = inputs.get("attention_mask")
    for key in got:
        if key == "task_id_used":
            continue
        a, b = got[key].astype(np.float64), want.outputs[key]
        if kept is not None and a.shape[:2] == kept.shape:  # what padding holds is nobody's business
            a, b = a[kept == 1], b[kept == 1]
        assert np.abs(a - b).max() <= TOLERANCE * max(1.0, np.abs(b).max()), key


@pytest.mark.parametrize("name", TARGETS)
def test_ept(exported: Exported, tmp_path: Path, name: str) -> None:
    base, onnx = exported(name)
    adapter = write_ept(tmp_path / "ept", linear_shapes(base, TARGETS[name]), seed=1, tasks=3, sizes=(2, 3, 3, 5))
    reference = trained_model(base, [adapter], top_k=2)
    for mode in ("conditioned", "dynamic"):
        options = ExportOptions(mode=mode, top_k=2, base_onnx=onnx)  # type: ignore[arg-type]
        bundle = export_bundle(base, [adapter], tmp_path / mode, options)
        _compare(bundle, reference, _inputs(name, 4), ["task2", "base", "task0", "task1"])
    options = ExportOptions(mode="static", task="task1", top_k=2, base_onnx=onnx)
    bundle = export_bundle(base, [adapter], tmp_path / "static", options)
    got = Session(bundle).run(_inputs(name, 2))["logits"]
    want = by_task(reference, _inputs(name, 2), [1, 1]).outputs["logits"]
    assert np.abs(got - want).max() <= TOLERANCE * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("name", TARGETS)
def test_tucka(exported: Exported, tmp_path: Path, name: str) -> None:
    base, onnx = exported(name)
    adapter = write_tucka(tmp_path / "tucka", linear_shapes(base, TARGETS[name]), seed=2)
    reference = trained_model(base, [adapter])
    for routing in ("batch", "row"):
        options = ExportOptions(mode="dynamic", routing=routing, base_onnx=onnx)  # type: ignore[arg-type]
        bundle = export_bundle(base, [adapter], tmp_path / routing, options)
        _compare(bundle, reference, _inputs(name, 3), None, routing=routing)
    route = Route(1, (0.7, 0.4))
    options = ExportOptions(mode="conditioned", routes={None: route}, base_onnx=onnx)
    bundle = export_bundle(base, [adapter], tmp_path / "conditioned", options)
    _compare(bundle, reference, _inputs(name, 3), ["task0", "base", "task0"], route=route)


@pytest.mark.parametrize("routing", ["batch", "row"])
def test_a_router_that_reads_one_vector_of_a_row(exported: Exported, tmp_path: Path, routing: Any) -> None:
    """The pooler has no positions, so the mask is not of what it reads."""
    base, onnx = exported("bert")
    adapter = write_tucka(tmp_path / "tucka", linear_shapes(base, ("pooler.dense",)), seed=2, router="pooler.dense")
    reference = trained_model(base, [adapter])
    bundle = export_bundle(
        base, [adapter], tmp_path / "bundle", ExportOptions(mode="dynamic", routing=routing, base_onnx=onnx)
    )
    _compare(bundle, reference, _inputs("bert", 3), None, routing=routing)


@pytest.mark.parametrize("name", TARGETS)
def test_lora(exported: Exported, tmp_path: Path, name: str) -> None:
    base, onnx = exported(name)
    shapes = linear_shapes(base, TARGETS[name])
    fewer = dict(list(shapes.items())[::2])
    adapters = [write_lora(tmp_path / "a", shapes, seed=3), write_lora(tmp_path / "b", fewer, seed=4, rank=7)]
    reference = trained_model(base, adapters)
    bundle = export_bundle(base, adapters, tmp_path / "bundle", ExportOptions(mode="conditioned", base_onnx=onnx))
    assert [task.name for task in bundle.manifest.tasks] == ["a", "b", "base"]
    _compare(bundle, reference, _inputs(name, 4), ["b", "a", "base", "b"])


@pytest.mark.parametrize("pooling", ["pooler", "first", "mean"])
def test_task_heads_on_the_bare_model(exported: Exported, tmp_path: Path, pooling: str) -> None:
    """An adapter trained on a model with a head fits the bare model: `bert.encoder` is `encoder` there."""
    base, _ = exported("bert")
    folder = write_ept(tmp_path / "ept", linear_shapes(base, ("query", "value")), seed=5, tasks=3, sizes=(2, 3))
    adapter = add_heads(folder, {"x": 2, "y": 5, "z": 1}, 24, pooling=pooling)
    reference = trained_model(base, [adapter], top_k=1)
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="conditioned", top_k=1))
    assert [(task.name, task.labels) for task in bundle.manifest.tasks] == [("x", 2), ("y", 5), ("z", 1)]
    _compare(bundle, reference, _inputs("bert", 4), ["y", "x", "z", "y"])
    session = Session(bundle)
    assert [len(row) for row in session.run(_inputs("bert", 3), task=["y", "x", "z"]).logits] == [5, 2, 1]
    with pytest.raises(RequestError, match=r"^no task 'base'; this bundle has x, y, z$"):  # the base alone has no head
        session.run(_inputs("bert", 1), task="base")


@pytest.mark.parametrize("mode", ["static", "conditioned", "dynamic"])
def test_fp16_storage(exported: Exported, tmp_path: Path, mode: str) -> None:
    base, onnx = exported("bert")
    adapter = write_ept(tmp_path / "ept", linear_shapes(base, TARGETS["bert"]), seed=1, tasks=2, sizes=(2, 3))
    task = "task1" if mode == "static" else None
    sizes, outputs = {}, {}
    for precision in ("fp32", "fp16"):
        options = ExportOptions(mode=mode, task=task, top_k=1, precision=precision, base_onnx=onnx)  # type: ignore[arg-type]
        bundle = export_bundle(base, [adapter], tmp_path / precision, options)
        tensors = [value.const_value for value in ir.load(bundle.model).graph.initializers.values()]
        sizes[precision] = sum(t.nbytes for t in tensors if t is not None and t.size >= 256)  # smaller ones stay
        outputs[precision] = Session(bundle).run(_inputs("bert", 3), task="task1")["logits"]
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    difference = np.abs(outputs["fp16"] - outputs["fp32"]).max()
    assert 0 < difference <= 5e-3 * np.abs(outputs["fp32"]).max()
