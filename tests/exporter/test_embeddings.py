"""The output ``embedding`` of bundles is what sentence-transformers itself computes of the base's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import BaseModelError
from eptx.exporter import ExportOptions
from eptx.exporter.bases import load_transformers
from eptx.runtime import Session
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_lora
from tests.exporter.validation.wrong.models import write_base
from tests.support.sentences import TEXTS, as_saved_before, dense, encoded, normalize, write_sentence

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
#: The largest difference of two float32 computations that were seen here is 2e-6.
MOST = 1e-5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A tiny BERT, its graph without a head, and an adapter."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("embeddings")
    base = write_base("bert", root / "base")
    ir.save(load_transformers(base, headless=True).model, root / "base.onnx")
    return base, root / "base.onnx", write_lora(root / "lora", linear_shapes(base, ("query",)), seed=1)


def width_of(base: Path) -> int:
    return int(json.loads((base / "config.json").read_text())["hidden_size"])


def exported(made: tuple[Path, Path, Path], folder: Path, **options: Any) -> Bundle:
    given = {"mode": "conditioned", **options}
    return export_bundle(folder, [made[2]], folder / "bundle", ExportOptions(base_onnx=made[1], **given))


def difference(bundle: Bundle, folder: Path) -> float:
    found = Session(bundle, provider="cpu").run(TEXTS, task="base")["embedding"]
    wanted = encoded(folder, TEXTS)
    assert found.shape == wanted.shape and found.dtype == np.float32
    return float(np.abs(found - wanted).max())


@pytest.mark.parametrize("mode", MODES)
def test_every_pooling(made: tuple[Path, Path, Path], tmp_path: Path, mode: str) -> None:
    folder = write_sentence(made[0], tmp_path / "base", [mode])
    bundle = exported(made, folder)
    assert bundle.manifest.embedding is not None and bundle.manifest.embedding.pooling == (mode,)
    assert difference(bundle, folder) <= MOST


@pytest.mark.parametrize("side", ["left", "right"])
def test_all_modes_side_by_side_then_layers(made: tuple[Path, Path, Path], tmp_path: Path, side: str) -> None:
    size = 6 * width_of(made[0])
    behind = [dense(size, 40, nn.Tanh()), dense(40, 24, nn.Identity(), bias=False), normalize()]
    folder = write_sentence(made[0], tmp_path / "base", [*reversed(MODES)], *behind)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": side}))
    assert difference(exported(made, folder), folder) <= MOST


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Sigmoid, nn.SiLU])
def test_every_activation(made: tuple[Path, Path, Path], tmp_path: Path, activation: Callable[[], nn.Module]) -> None:
    folder = write_sentence(made[0], tmp_path / "base", ["mean"], dense(width_of(made[0]), 24, activation()))
    assert difference(exported(made, folder, precision="fp16"), folder) < 1e-2  # the base's weights are rounded
    assert difference(exported(made, folder), folder) <= MOST


@pytest.mark.parametrize("modes", [["mean"], ["cls", "lasttoken"]])
def test_as_older_releases_wrote_it(made: tuple[Path, Path, Path], tmp_path: Path, modes: list[str]) -> None:
    folder = write_sentence(made[0], tmp_path / "base", modes, normalize())
    new = encoded(folder, TEXTS)
    as_saved_before(folder)
    assert np.array_equal(encoded(folder, TEXTS), new)
    assert difference(exported(made, folder), folder) <= MOST


def test_rows_of_every_task_have_theirs(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """In one batch: labels of two tasks, and the base's embedding, for which there is a task ``base`` then."""
    folder = write_sentence(made[0], tmp_path / "base", ["mean"])
    shapes = linear_shapes(made[0], ("query", "value"))
    heads = add_heads(write_ept(tmp_path / "ept", shapes, seed=3, tasks=2), {"a": 2, "b": 3}, width_of(made[0]))
    options = ExportOptions(mode="conditioned", base_onnx=made[1], top_k=2)
    with_it = Session(export_bundle(folder, [heads], tmp_path / "with", options), provider="cpu")
    without = Session(export_bundle(made[0], [heads], tmp_path / "without", options), provider="cpu")
    assert (with_it.tasks, without.tasks) == (("a", "b", "base"), ("a", "b"))
    outputs = with_it.run(TEXTS[:3], task=["a", "base", "b"])
    assert [len(row) for row in outputs.logits] == [2, 0, 3] and outputs.labels[1] is None
    alone = without.run([TEXTS[0], TEXTS[2]], task=["a", "b"])
    for found, wanted in zip((outputs.logits[0], outputs.logits[2]), alone.logits, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    base = encoded(folder, TEXTS[:3])
    np.testing.assert_allclose(outputs["embedding"][1], base[1], atol=MOST)
    assert np.abs(outputs["embedding"][[0, 2]] - base[[0, 2]]).max() > 1e-2  # those of the adapted encoder


def changed(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    path = folder / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _rename(at: int, name: str) -> Callable[[Any], Any]:
    return lambda parts: [part | ({"type": name} if i == at else {}) for i, part in enumerate(parts)]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("modules.json", _rename(2, "sentence_transformers.models.LSTM"), "'sentence_transformers.models.LSTM'"),
        ("modules.json", _rename(2, "my_code.Dense"), "'my_code.Dense'"),
        ("modules.json", lambda parts: [parts[0], parts[2], parts[1]], "has Transformer, Dense, Pooling"),
        ("2_Dense/config.json", lambda own: own | {"activation_function": "torch.nn.Softmax"}, "'torch.nn.Softmax'"),
        ("2_Dense/config.json", lambda own: own | {"use_residual": True}, "2_Dense adds its input"),
        ("2_Dense/config.json", lambda own: own | {"module_input_name": "token_embeddings"}, "2_Dense reads or gives"),
        ("1_Pooling/config.json", lambda own: own | {"pooling_mode": "sum"}, "1_Pooling pools by 'sum'"),
        ("1_Pooling/config.json", lambda own: own | {"include_prompt": False}, "leaves the prompts"),
    ],
)
def test_what_is_not_known_is_left_out_and_named(
    made: tuple[Path, Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: Callable[[Any], Any],
    said: str,
) -> None:
    from eptx.progress import shown

    folder = write_sentence(made[0], tmp_path / "base", ["mean"], dense(width_of(made[0]), 24, nn.Tanh()))
    changed(folder, "config_sentence_transformers.json", lambda own: own | {"prompts": {"query": "query: "}})
    changed(folder, name, change)
    with shown():
        bundle = exported(made, folder)
    lines = [line for line in capsys.readouterr().err.splitlines() if "has no output embedding" in line]
    assert len(lines) == 1 and said in lines[0]
    assert bundle.manifest.embedding is None and "embedding" not in [spec.name for spec in bundle.manifest.outputs]


def test_a_pickle_is_read_where_it_is_allowed(
    made: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    from eptx.progress import shown

    folder = write_sentence(made[0], tmp_path / "base", ["mean"], dense(width_of(made[0]), 24, nn.Tanh()))
    weights = folder / "2_Dense" / "model.safetensors"
    torch.save(load_file(weights), folder / "2_Dense" / "pytorch_model.bin")
    weights.unlink()
    with shown():
        assert exported(made, folder).manifest.embedding is None
    assert (
        "2_Dense holds a pickle, pytorch_model.bin, which is read with --allow-pickle only" in capsys.readouterr().err
    )
    assert difference(exported(made, folder, allow_pickle=True), folder) <= MOST


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("modules.json", lambda parts: {}, "modules.json: must be a list"),
        ("modules.json", lambda parts: [*parts[:-1], parts[-1] | {"path": "../x"}], "no path inside the folder"),
        ("1_Pooling/config.json", lambda own: own | {"embedding_dimension": 7}, "no linear layer of 7 numbers"),
        ("2_Dense/config.json", lambda own: [], "JSON object"),
    ],
)
def test_damage_is_refused(
    made: tuple[Path, Path, Path], tmp_path: Path, name: str, change: Callable[[Any], Any], said: str
) -> None:
    folder = write_sentence(made[0], tmp_path / "base", ["mean"], dense(width_of(made[0]), 24, nn.Tanh()))
    changed(folder, name, change)
    with pytest.raises(BaseModelError, match=said) as caught:
        exported(made, folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "bundle").exists()


@pytest.mark.parametrize("heads", [False, True])
def test_tasks_are_added_and_removed_with_it(made: tuple[Path, Path, Path], tmp_path: Path, heads: bool) -> None:
    """A bundle whose tasks change is, byte for byte, the export of all of them."""
    from eptx import add, remove

    folder = write_sentence(made[0], tmp_path / "base", ["mean"], dense(width_of(made[0]), 24, nn.Tanh()), normalize())
    adapters = [
        write_lora(tmp_path / name, linear_shapes(made[0], (module,)), seed=2)
        for name, module in (("lora", "query"), ("second", "value"))
    ]
    for labels, adapter in enumerate(adapters if heads else (), 2):
        add_heads(adapter, {adapter.name: labels}, width_of(made[0]))
    options = ExportOptions(mode="conditioned")
    both = export_bundle(folder, adapters, tmp_path / "both", options)
    one = export_bundle(folder, adapters[:1], tmp_path / "one", replace(options, tasks=["lora"]))
    added = add(one.path, adapters[1:], tmp_path / "added")
    removed = remove(added.path, ["second"], tmp_path / "removed")
    assert _models(added) == _models(both) and _models(removed) == _models(one)
    assert added.manifest.embedding == removed.manifest.embedding == both.manifest.embedding
    assert [task.name for task in added.manifest.tasks] == ["lora", "second", "base"]
    assert difference(removed, folder) <= MOST


def _models(bundle: Bundle) -> Sequence[bytes]:
    return [(bundle.path / name).read_bytes() for name in ("model.onnx", "model.onnx.data", "model.base")]
