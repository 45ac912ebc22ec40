"""Adapters that bring tensors of their own, added to bundles and removed: the bytes of an export of those adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import eptx
from eptx.bundle import read_bundle
from eptx.errors import AdapterError, BundleError, EptxError, NotSupportedError
from eptx.exporter import ExportOptions
from eptx.exporter.bases import BaseGraph, load_transformers
from eptx.exporter.steps import load
from eptx.files.safe_files import hash_file
from eptx.files.strict_json import dump_json
from tests.calibration.test_change import is_the_same
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_lora
from tests.support.decoders import write_decoder

WIDTH = 16
_BERT = transformers.BertConfig(
    vocab_size=60,
    hidden_size=WIDTH,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=24,
)
NORM = "bert.encoder.layer.0.output.LayerNorm"
CONDITIONED = ExportOptions(mode="conditioned")


def write_base(folder: Path, kind: str = "BertModel", **settings: object) -> Path:
    torch.manual_seed(0)
    config = transformers.BertConfig(**{**_BERT.to_dict(), **settings})
    model = getattr(transformers, kind)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # exporters make equal tensors one
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def brings(folder: Path, saved: dict[str, tuple[int, ...]], seed: int, **config: object) -> Path:
    """Gives an adapter tensors of its own."""
    rng = np.random.default_rng(seed)
    tensors = load_file(folder / "adapter_model.safetensors")
    for name, shape in saved.items():
        tensors[f"base_model.model.{name}"] = rng.normal(0.5, 0.3, shape).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    return folder


def classifier(base: Path, folder: Path, labels: int, seed: int, *more: str) -> Path:
    """A LoRA adapter of a classifier of BERT, with that saved, or without for no labels."""
    shapes = {f"bert.{n.removeprefix('bert.')}": s for n, s in linear_shapes(base, ("query", "value")).items()}
    saved = {"classifier.weight": (labels, WIDTH), "classifier.bias": (labels,)} if labels else {}
    saved |= {f"{module}.{name}": (WIDTH,) for module in more for name in ("weight", "bias")}
    modules = ["classifier", *(module.removeprefix("bert.encoder.") for module in more)] if saved else None
    made = write_lora(folder, shapes, seed=seed, rank=2 + seed)
    targets = ["query", "value"]
    return brings(made, saved, seed, task_type="SEQ_CLS", modules_to_save=modules, target_modules=targets)


def both_ways(base: Path, adapters: Sequence[Path], folder: Path, options: ExportOptions = CONDITIONED) -> None:
    """The last adapter put on a bundle of the others, and taken off one of all."""
    eptx.export(base, adapters[:-1], folder / "fewer", replace(options, tasks=[path.name for path in adapters[:-1]]))
    eptx.export(base, adapters, folder / "all", replace(options, tasks=[path.name for path in adapters]))
    eptx.add(folder / "fewer", adapters[-1:], folder / "added")
    is_the_same(folder / "added", folder / "all")
    eptx.remove(folder / "all", [adapters[-1].name], folder / "removed")
    is_the_same(folder / "removed", folder / "fewer")


def test_heads_of_other_label_counts(tmp_path: Path) -> None:
    """The base has no head. Two tasks of two labels get a third of three, whose norm is its own too."""
    base = write_base(tmp_path / "base")
    adapters = [classifier(base, tmp_path / name, labels, seed) for name, labels, seed in (("a", 2, 1), ("b", 2, 2))]
    adapters.append(classifier(base, tmp_path / "c", 3, 3, NORM))
    both_ways(base, adapters, tmp_path)
    manifest = read_bundle(tmp_path / "added").manifest
    assert [(task.name, task.labels) for task in manifest.tasks] == [("a", 2), ("b", 2), ("c", 3)]
    report = eptx.validate(tmp_path / "added", eptx.ValidateOptions())
    assert report.passed, report.reason


def test_a_bundle_of_one_task(tmp_path: Path) -> None:
    """Its head is the graph's own until a second task has another."""
    base = write_base(tmp_path / "base")
    both_ways(base, [classifier(base, tmp_path / "a", 3, 1), classifier(base, tmp_path / "b", 2, 2)], tmp_path)
    for index, (change, message) in enumerate(_LIES):
        lying = shutil.copytree(tmp_path / "all", tmp_path / f"lying{index}")
        _lie(lying, change)
        with pytest.raises(BundleError, match=message):
            eptx.remove(lying, ["b"], tmp_path / "out")


#: What a record may say of a tensor that is not so, and what is said to that.
_LIES: list[tuple[dict[str, object], str]] = [
    (
        {"entries": [0, 9]},
        r"^adapters\.json: classifier\.weight\.bank is .*, and not as it says of classifier\.weight$",
    ),
    ({"sizes": [3, 99]}, r"and not as it says of classifier\.weight$"),
    ({"base": 7}, r"and not as it says of classifier\.weight$"),
    ({"value": "nothing"}, r"^adapters\.json: the base graph of model\.onnx has no nothing$"),
    ({"sizes": [-1]}, r"sizes must be a list of counts$"),
]


def _lie(bundle: Path, change: dict[str, object]) -> None:
    """Changes what the record says of the classifier, listed with its new size and SHA-256 as a forger would."""
    record, manifest = (json.loads((bundle / name).read_text()) for name in ("adapters.json", "eptx.json"))
    tables = record["graphs"]["model.onnx"]["tensors"].values()
    next(table for table in tables if table["tensor"] == "classifier.weight").update(change)
    (bundle / "adapters.json").write_bytes(dump_json(record))
    size, digest = hash_file(bundle / "adapters.json", error=BundleError)
    manifest["files"]["adapters.json"] = {"size": size, "sha256": digest}
    (bundle / "eptx.json").write_bytes(dump_json(manifest))


def test_a_base_with_a_head(tmp_path: Path) -> None:
    """A task without a head of its own reads the base's, like rows of `base`."""
    base = write_base(tmp_path / "base", "BertForSequenceClassification")
    both_ways(base, [classifier(base, tmp_path / "a", 0, 1), classifier(base, tmp_path / "b", 3, 2, NORM)], tmp_path)
    counts = {task.name: task.labels for task in read_bundle(tmp_path / "added").manifest.tasks}
    assert counts == {"a": 2, "b": 3, "base": 2}


@pytest.fixture
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base of which tasks change no tensor is traced once."""
    known: dict[object, BaseGraph] = {}

    def load_once(folder: Path, **options: object) -> BaseGraph:
        if folder not in known:
            known[folder] = load_transformers(folder, **options)  # type: ignore[arg-type]
        return replace(known[folder], model=known[folder].model.clone())

    monkeypatch.setattr(load, "load_transformers", load_once)


def test_task_heads(traced_once: None, tmp_path: Path) -> None:
    """Each folder brings the head of its task. A precision that rounds the base leaves heads as they are."""
    base = write_base(tmp_path / "base")
    adapters = []
    for seed, (name, labels) in enumerate((("a", 2), ("b", 3), ("c", 1))):
        shapes = linear_shapes(base, ("query", "value"))
        adapters.append(add_heads(write_lora(tmp_path / name, shapes, seed=seed), {name: labels}, WIDTH, seed=seed))
    for precision in ("fp32", "int8"):
        options = replace(CONDITIONED, precision=precision)  # type: ignore[arg-type]
        both_ways(base, adapters, tmp_path / precision, options)
    report = eptx.validate(tmp_path / "fp32" / "added", eptx.ValidateOptions())
    assert report.passed, report.reason
    assert [task.labels for task in report.manifest.tasks] == [2, 3, 1]
    with pytest.raises(AdapterError, match=r"^other/task_heads.safetensors: has a head for 'x'; the folder's task is"):
        other = add_heads(write_lora(tmp_path / "other", shapes, seed=1), {"x": 2}, WIDTH)
        eptx.export(base, [*adapters, other], tmp_path / "out", CONDITIONED)
    headless = write_lora(tmp_path / "headless", shapes, seed=1)
    with pytest.raises(
        AdapterError, match=r"^some of the adapters have a task_heads.safetensors, and others have none"
    ):
        eptx.add(tmp_path / "fp32" / "all", [headless], tmp_path / "out")


def test_a_decoder(tmp_path: Path) -> None:
    """Norms that tasks train beside their factors: one task two of them, the other the last."""
    base = write_decoder("llama", tmp_path / "base", num_hidden_layers=1)
    shapes = linear_shapes(base, ("q_proj", "v_proj"))
    last, inner = "model.norm.weight", "model.layers.0.post_attention_layernorm.weight"
    adapters = []
    for seed, (name, saved) in enumerate((("a", (last, inner)), ("b", (last,)))):
        modules = [tensor.removesuffix(".weight") for tensor in saved]
        said = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"], "modules_to_save": modules}
        plain = write_lora(tmp_path / name, shapes, seed=seed)
        adapters.append(brings(plain, dict.fromkeys(saved, (64,)), seed, **said))
    both_ways(base, adapters, tmp_path)
    report = eptx.validate(tmp_path / "added", eptx.ValidateOptions())
    assert report.passed, report.reason


def _table(folder: Path) -> Path:
    name = "bert.embeddings.word_embeddings.weight"
    return brings(folder, {name: (60, WIDTH)}, 5, modules_to_save=["word_embeddings"])


def _lacking(folder: Path) -> Path:
    return brings(folder, {"bert.nothing.weight": (3,)}, 5)


def _wide(folder: Path) -> Path:
    return brings(folder, {f"{NORM}.weight": (3,)}, 5)


def test_what_a_bundle_cannot_take(tmp_path: Path) -> None:
    """Refused in one line, with what else there is to do, and nothing is written."""
    base = write_base(tmp_path / "base", "BertForSequenceClassification")
    first = classifier(base, tmp_path / "a", 0, 1)
    eptx.export(base, [first], tmp_path / "bundle", CONDITIONED)
    eptx.export(base, [first], tmp_path / "rounded", replace(CONDITIONED, precision="int8"))
    cases: list[tuple[str, Callable[[Path], Path] | None, type[EptxError], str]] = [
        (
            "bundle",
            _table,
            NotSupportedError,
            r"^an adapter changes bert.embeddings.word_embeddings.weight in a",
        ),
        (
            "bundle",
            _lacking,
            NotSupportedError,
            r"^bundle: the base's graph has no bert.nothing.weight, which",
        ),
        ("bundle", _wide, AdapterError, r"^bert.encoder.layer.0.output.LayerNorm.weight is \[3\] in the adapter"),
        (
            "rounded",
            None,
            NotSupportedError,
            r"^rounded is quantized, and does not hold the base's classifier.weight:",
        ),
    ]
    for index, (bundle, change, error, message) in enumerate(cases):
        adapter = classifier(base, tmp_path / f"new{index}", 0 if change else 3, 2)
        with pytest.raises(error, match=message) as told:
            eptx.add(tmp_path / bundle, [change(adapter) if change else adapter], tmp_path / "out")
        assert error is AdapterError or str(told.value).endswith("export base and adapters again with eptx export")
        assert not (tmp_path / "out").exists()
