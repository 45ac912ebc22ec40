"""EPT and TuckA on classes of their own: task heads, modules that were renamed since, routes of one forward alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from eptx.errors import AdapterError, BaseModelError, RequestError
from eptx.exporter.methods.tuner import TaskRows
from tests.exporter.trained.models import WIDTH, inputs, write_base
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_tucka
from tests.support.trained import by_task, trained_model

SHAPE = (WIDTH, WIDTH)
OLD = "encoder.layer.0.attention.attention"


@pytest.mark.parametrize("method", ["ept", "tucka"])
@pytest.mark.parametrize("pooling", ["pooler", "first", "mean"])
def test_heads_read_the_pooled_vector_of_their_row(tmp_path: Path, method: str, pooling: str) -> None:
    base = write_base("bert", "BertModel", tmp_path / "base")
    shapes = linear_shapes(base, ("query", "output.dense"))
    if method == "ept":
        folder = write_ept(tmp_path / "a", shapes, seed=1, tasks=2, sizes=(2, 3), rank=2, strength=0.5)
    else:
        folder = write_tucka(tmp_path / "a", shapes, seed=1, rank=3, strength=0.5)
    add_heads(folder, {"a": 2, "b": 3}, WIDTH, pooling=pooling)
    trained = trained_model(base, [folder], top_k=1 if method == "ept" else None)
    assert trained.tasks == ("a", "b")
    asked = inputs("bert")
    output = by_task(trained, asked, [0, 1, 0])
    hidden, mask = output.outputs["last_hidden_state"], asked["attention_mask"]
    pooled = {
        "pooler": output.outputs["pooler_output"],
        "first": hidden[:, 0],
        "mean": np.stack([row[: m.sum()].mean(0) for row, m in zip(hidden, mask, strict=True)]),
    }[pooling]
    heads = load_file(folder / "task_heads.safetensors")
    logits = output.outputs["logits"]
    for row, task in enumerate("aba"):
        want = heads[f"{task}.weight"].astype(np.float64) @ pooled[row] + heads[f"{task}.bias"]
        np.testing.assert_allclose(logits[row, : len(want)], want, atol=1e-9)
        assert not logits[row, len(want) :].any()
    assert not by_task(trained, asked, [2, 2, 2]).outputs["logits"].any()  # without a task there is no head


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_old_names_of_modules(tmp_path: Path, prefix: str) -> None:
    """Adapters of the days before on a bare base, saved there or under a head."""
    base = write_base("vit", "ViTModel", tmp_path / "base")
    names = [f"{prefix}{OLD}.{name}" for name in ("query", "value")]
    folder = write_ept(tmp_path / "a", dict.fromkeys(names, SHAPE), seed=1, tasks=2, sizes=(2, 3), rank=2, strength=0.5)
    trained = trained_model(base, [folder], top_k=1)
    asked = inputs("vit", 2)
    output = trained.run(asked, [0, 2])
    assert {name: array.shape for name, array in output.modules.items()} == dict.fromkeys(names, (2, 5, WIDTH))
    off = trained.run(asked, [2, 2])
    moved = np.abs(output.outputs["last_hidden_state"] - off.outputs["last_hidden_state"]).max((1, 2))
    assert moved[0] > 1e-2
    assert moved[1] < 1e-12


def test_the_route_is_that_of_its_own_forward(tmp_path: Path) -> None:
    """ViT runs key and value before query, the router."""
    base = write_base("vit", "ViTModel", tmp_path / "base")
    names = [f"{OLD}.{name}" for name in ("query", "key", "value")]
    folder = write_tucka(tmp_path / "a", dict.fromkeys(names, SHAPE), seed=1, rank=3, strength=0.5)
    images = [{"pixel_values": np.random.default_rng(i).normal(size=(1, 3, 8, 8)) * 3} for i in range(8)]
    trained = trained_model(base, [folder])
    again = [trained.run(image, [0]) for image in images]
    for image, output in zip(images, again, strict=True):
        fresh = trained_model(base, [folder]).run(image, [0])
        assert np.array_equal(fresh.outputs["last_hidden_state"], output.outputs["last_hidden_state"])
    assert len({int(output.group[0]) for output in again if output.group is not None}) > 1


def test_rows_of_one_task_are_rows_of_any(tmp_path: Path) -> None:
    """Together, apart, or with rows that infer: a row computes the same."""
    base = write_base("bert", "BertModel", tmp_path / "base")
    shapes = linear_shapes(base, ("query", "value"))
    folder = write_ept(tmp_path / "a", shapes, seed=1, tasks=3, sizes=(2, 3), rank=2, strength=0.5)
    trained, asked = trained_model(base, [folder], top_k=1), inputs("bert")
    for ids in ([0, 1, 2], [1, 1, 1], [2, 3, 2], [-1, -1, -1], [-1, 0, 3]):
        whole, apart = trained.run(asked, ids), by_task(trained, asked, ids)
        assert whole.task.tolist() == apart.task.tolist()
        for name, array in whole.outputs.items():
            np.testing.assert_allclose(array, apart.outputs[name], rtol=0, atol=1e-12)


def test_task_ids_are_whole_numbers(tmp_path: Path) -> None:
    base = write_base("bert", "BertModel", tmp_path / "base")
    folder = write_ept(tmp_path / "a", linear_shapes(base, ("query",)), seed=1, tasks=3, sizes=(2, 3), rank=2)
    trained, asked = trained_model(base, [folder], top_k=1), inputs("bert")
    with pytest.raises(RequestError, match=r"whole numbers, got \[1\.7, 0\.2, 1\.0\]"):
        trained.run(asked, [1.7, 0.2, 1.0])  # type: ignore[list-item]
    with pytest.raises(RequestError, match=r"must be \[batch\]"):
        trained.run(asked, [])
    rows = TaskRows(3)
    with pytest.raises(TypeError, match="whole numbers"):
        rows.set([1.7, 0.2])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="whole numbers"):
        rows.set(torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"\[batch\]"):
        rows.set([])
    rows.set(np.array([1, 3], np.int32))  # type: ignore[arg-type]
    assert rows.ids is not None and rows.ids.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("module", "shape", "error"),
    [
        ("encoder.layer.0.attention.self.query", (WIDTH, WIDTH + 2), AdapterError),
        ("encoder.layer.0.attention.self.query", (WIDTH + 2, WIDTH), AdapterError),
        ("encoder.layer.7.output.dense", SHAPE, BaseModelError),
        ("embeddings.word_embeddings", SHAPE, AdapterError),
    ],
)
def test_a_base_that_does_not_fit_is_refused(
    tmp_path: Path, module: str, shape: tuple[int, int], error: type[Exception]
) -> None:
    base = write_base("bert", "BertModel", tmp_path / "base")
    folder = write_ept(tmp_path / "a", {module: shape}, seed=1, tasks=2, sizes=(2, 3), rank=2)
    with pytest.raises(error, match=module.replace(".", r"\.")) as caught:
        trained_model(base, [folder], top_k=1)
    assert "\n" not in str(caught.value)


def test_top_k_of_the_files_is_used(tmp_path: Path) -> None:
    base = write_base("bert", "BertModel", tmp_path / "base")
    shapes = linear_shapes(base, ("query",))
    folder = write_ept(tmp_path / "a", shapes, seed=1, tasks=2, sizes=(2, 3, 4), rank=2, strength=0.5)
    path = folder / "adapter_config.json"
    asked: Any = inputs("bert")
    by_hand = [trained_model(base, [folder], top_k=k).run(asked, [0] * 3).outputs["pooler_output"] for k in (1, 2)]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"top_k": 2}))
    said = trained_model(base, [folder]).run(asked, [0] * 3).outputs["pooler_output"]
    assert np.array_equal(said, by_hand[1])
    assert not np.allclose(said, by_hand[0])
