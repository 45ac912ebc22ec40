"""The checks of files, tested themselves: one line of the exporter is broken, and the check that is for it notices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import eptx
from eptx.bundle import Bundle, BundleWriter
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.bases import is_decoder
from eptx.exporter.bases.loaders import genai, genai_config
from eptx.exporter.bundle.lower import Lowest
from eptx.exporter.validation.contents.files import ExpectedTask
from tests.exporter.validation.adapters import linear_shapes, write_lora
from tests.exporter.validation.contents.files.made import Made

Patch = pytest.MonkeyPatch
WRITE = "eptx.exporter.bundle.write"


def _encoder(made: Made, onnx: Path, ept: Path, out: Path, **options: Any) -> dict[str, str]:
    settings = ExportOptions(mode="conditioned", top_k=2, base_onnx=onnx, **options)
    return replace(made, bundle=eptx.export(made.base, [ept], out, settings)).wrong()


def _manifest_with(patch: Patch, change: Callable[[Any], dict[str, Any]]) -> None:
    """What `write._manifest` gives, with some fields changed."""
    from eptx.exporter.bundle import write

    made = write._manifest
    patch.setattr(write, "_manifest", lambda *given: replace(m := made(*given), **change(m)))


def _turn_labels(manifest: Any) -> dict[str, Any]:
    first, *others = manifest.tasks
    return {"tasks": (replace(first, label_names=("x", "y")), *others)}


def _drop(name: str) -> Callable[[Patch], None]:
    def change(patch: Patch) -> None:
        from eptx.exporter.bundle import write

        for names in ("COMPANIONS", "TOKENIZER_FILES"):
            patch.setattr(write, names, tuple(other for other in getattr(write, names) if other != name))

    return change


def _copy_changed(name: str, change: Callable[[str], str]) -> Callable[[Patch], None]:
    """The writer copies one file with other content."""
    copied = BundleWriter.copy

    def copy(self: BundleWriter, source: Path, *rest: Any, **options: Any) -> None:
        copied(self, source, *rest, **options)
        if source.name == name:
            (self.folder / name).write_text(change((self.folder / name).read_text()))

    return lambda patch: patch.setattr(BundleWriter, "copy", copy)


def _half(patch: Patch) -> None:
    """fp16 is claimed, and nothing is stored so."""
    patch.setattr("eptx.calibration.export.store", lambda adapted: None)


def _unlowered(patch: Patch) -> None:
    """A graph is said to be lowered, and is not."""
    patch.setattr("eptx.exporter.bundle.least_release.lower", lambda model: Lowest(9, 18, None))


#: What is wrong with a bundle whose longest text is too short.
LENGTHS = ("eptx.json: max_length", "eptx.json: text", "tokenizer: ids")


@pytest.mark.parametrize(
    ("broken", "options", "names"),
    [
        (lambda p: p.setattr("eptx.exporter.steps.load.longest", lambda graph: 62), {}, [*LENGTHS]),
        (lambda p: _manifest_with(p, lambda m: {"vocab_size": 199}), {}, ["eptx.json: vocab_size"]),
        (lambda p: _manifest_with(p, lambda m: {"model_type": "albert"}), {}, ["eptx.json: model_type"]),
        (lambda p: _manifest_with(p, lambda m: {"tasks": m.tasks[:-1]}), {}, ["eptx.json: tasks"]),
        (lambda p: _manifest_with(p, _turn_labels), {}, ["eptx.json: task sst2: label_names"]),
        (_unlowered, {}, [f"eptx.json: onnxruntime.{name}" for name in ("version", "ir_version", "opset")]),
        (_drop("vocab.txt"), {}, ["vocab.txt"]),
        (_drop("config.json"), {}, ["config.json"]),
        (_drop("tokenizer_config.json"), {}, ["tokenizer_config.json"]),
        (_copy_changed("tokenizer.json", lambda t: t.replace('"lowercase": true', '"lowercase": false')), {}, None),
        (_copy_changed("config.json", lambda t: t.replace("gelu", "relu")), {}, ["config.json"]),
        (_half, {"precision": "fp16"}, ["eptx.json: precision"]),
        (lambda p: p.setattr(f"{WRITE}._precision", lambda adapted: "fp16"), {}, ["eptx.json: precision"]),
    ],
)  # fmt: skip
def test_an_encoders_export(
    encoder: Made, bert_onnx: Path, ept: Path, tmp_path: Path, broken: Any, options: dict[str, Any],
    names: list[str] | None,
) -> None:  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        broken(patch)
        wrong = _encoder(encoder, bert_onnx, ept, tmp_path / "b", **options)
    assert list(wrong) == (names if names is not None else ["tokenizer.json", "tokenizer: ids"])


def _search(patch: Patch, **settings: Any) -> None:
    """What GenAI's configuration says of the search, changed on the way."""
    made = genai_config.genai_config

    def changed(*arguments: Any) -> bytes:
        content = json.loads(made(*arguments))
        content["search"].update(settings)
        return json.dumps(content).encode()

    patch.setattr(f"{WRITE}.genai_config", changed)


def _generation(patch: Patch, **fields: Any) -> None:
    made = genai.ends_and_padding
    patch.setattr(genai, "ends_and_padding", lambda *arguments: replace(made(*arguments), **fields))


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (lambda p: _search(p, do_sample=False), ["genai_config.json: search.do_sample"]),
        (lambda p: _search(p, temperature=1.0), ["genai_config.json: search.temperature"]),
        (lambda p: _generation(p, eos=(2,)), ["eptx.json: generation.eos"]),
        (lambda p: _generation(p, pad=5), ["eptx.json: generation.pad"]),
        (_drop("chat_template.jinja"), ["chat template"]),
        (_drop("generation_config.json"), ["generation_config.json"]),
    ],
)
def test_a_decoders_export(decoder: Made, tmp_path: Path, broken: Any, names: list[str]) -> None:
    assert is_decoder(json.loads((decoder.base / "config.json").read_text()))
    adapter = write_lora(tmp_path / "lora", linear_shapes(decoder.base, ("down_proj",)), seed=2)
    options = ExportOptions(mode="conditioned", tasks=["chat"])
    with pytest.MonkeyPatch.context() as patch:
        broken(patch)
        bundle: Bundle = export_bundle(decoder.base, [adapter], tmp_path / "b", options)
    assert list(replace(decoder, bundle=bundle).wrong()) == names


def test_mpnet_numbers_positions_behind_its_padding(tmp_path: Path) -> None:
    """Today's export says two positions too many; with the right figure nothing is wrong."""
    import transformers

    from eptx.exporter.validation.base.lookups import lookups

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = transformers.MPNetModel(transformers.MPNetConfig(**sizes, vocab_size=60, max_position_embeddings=34))
    model.save_pretrained(tmp_path)
    assert lookups(model).longest == 32


def test_several_lora_folders_are_tasks_in_their_order(encoder: Made, bert_onnx: Path, tmp_path: Path) -> None:
    shapes = linear_shapes(encoder.base, ("query",))
    adapters = [write_lora(tmp_path / name, shapes, seed=i) for i, name in enumerate(("first", "second"))]
    options = ExportOptions(mode="conditioned", base_onnx=bert_onnx, tasks=["a", "b"])
    bundle = export_bundle(encoder.base, adapters, tmp_path / "bundle", options)
    trained = [ExpectedTask("a", None, None), ExpectedTask("b", None, None)]
    assert Made(bundle, encoder.base, trained, "AutoModel").wrong() == {}
    turned = Made(bundle, encoder.base, trained[::-1], "AutoModel").wrong()
    assert list(turned) == ["eptx.json: tasks"] and "has id 0; it was trained as 1" in turned["eptx.json: tasks"]


def test_a_base_that_moved_is_compared_where_it_is(encoder: Made, tmp_path: Path) -> None:
    base = Path(shutil.copytree(encoder.base, tmp_path / "elsewhere"))
    assert replace(encoder, base=base).wrong() == {}
