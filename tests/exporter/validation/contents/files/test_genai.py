"""``genai_config.json``: whatever field is changed, it is named; what the user gave with the base counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.validation.contents.files import ExpectedTask, compare_files
from tests.exporter.validation.adapters import linear_shapes, write_lora
from tests.exporter.validation.contents.files.made import Made, damaged, edit, put
from tests.support.bundles import copy_bundle
from tests.support.decoders import write_decoder

GENAI = "genai_config.json"
#: What `read_bundle` refuses itself, and what names a log's lines.
_ELSEWHERE = ("model.decoder.filename", "model.decoder.session_options.log_id")


def _leaves(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _leaves(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return value[:1] if value else [{"cuda": {}}]
    return f"{value}x" if isinstance(value, str) else value + 1


def test_every_field_is_held_to_the_base(decoder: Made, tmp_path: Path) -> None:
    written = json.loads((decoder.bundle.path / GENAI).read_text())
    assert written["search"]["temperature"] == 0.6 and written["model"]["eos_token_id"] == [2, 5]
    fields = {key: value for key, value in _leaves(written) if key not in _ELSEWHERE}
    assert len(fields) > 30
    for i, (key, value) in enumerate(fields.items()):
        wrong = decoder.wrong(damaged(decoder.bundle, tmp_path / str(i), put(GENAI, key, _other(value))))
        assert list(wrong) == [f"{GENAI}: {key}"], key
        shutil.rmtree(tmp_path / str(i))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("search.chunk_size", 16),
        ("search.random_seed", 1),
        ("model.decoder.sliding_window", {"window_size": 4}),
        ("model.decoder.session_options.use_env_allocators", True),
        ("engine", {"dynamic_batching": {"block_size": 1}}),
    ],
)
def test_a_field_that_no_base_asks_for(decoder: Made, tmp_path: Path, keys: str, value: Any) -> None:
    wrong = decoder.wrong(damaged(decoder.bundle, tmp_path / "b", put(GENAI, keys, value)))
    assert len(wrong) == 1 and next(iter(wrong)).startswith(f"{GENAI}: {keys}")
    assert "no base asks for it" in next(iter(wrong.values()))


@pytest.mark.parametrize("key", ["temperature", "do_sample", "max_length"])
def test_a_field_that_is_missing(decoder: Made, tmp_path: Path, key: str) -> None:
    change = edit(GENAI, lambda content: content["search"].pop(key))
    wrong = decoder.wrong(damaged(decoder.bundle, tmp_path / "b", change))
    assert list(wrong) == [f"{GENAI}: search.{key}"] and "is missing" in wrong[f"{GENAI}: search.{key}"]


def test_the_file_is_missing(decoder: Made, tmp_path: Path) -> None:
    bundle = damaged(decoder.bundle, tmp_path / "b", lambda folder: (folder / GENAI).unlink())
    assert list(decoder.wrong(bundle)) == [GENAI]


@pytest.mark.parametrize("name", ["gemma2", "phi3", "phi", "qwen3"])
def test_other_decoders_are_not_accused(tmp_path: Path, name: str) -> None:
    base = write_decoder(name, tmp_path / "base")
    (base / "generation_config.json").unlink()  # the configuration alone says what ends an answer
    adapter = write_lora(tmp_path / "lora", linear_shapes(base, ("down_proj", "fc2")), seed=2)
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="static", precision="fp16"))
    made = Made(bundle, base, [ExpectedTask("task0", None, None)], "AutoModelForCausalLM")
    assert made.wrong() == {}


#: What GenAI's builder takes from there, and what it leaves out.
_SEARCH = {
    "do_sample": True,
    "temperature": 0.5,
    "top_k": 7,
    "top_p": 0.75,
    "repetition_penalty": 1.1,
    "no_repeat_ngram_size": 3,
    "length_penalty": 1.5,
    "min_length": 2,
    "num_beams": 1,
    "early_stopping": False,
}


def test_the_search_is_that_of_the_generation_settings(decoder: Made, tmp_path: Path) -> None:
    base = shutil.copytree(decoder.base, tmp_path / "base")
    said = json.loads((base / "generation_config.json").read_text()) | _SEARCH
    (base / "generation_config.json").write_text(json.dumps(said))
    adapter = write_lora(tmp_path / "lora", linear_shapes(base, ("down_proj",)), seed=2)
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="static", tasks=["chat"]))
    written = json.loads((bundle.path / GENAI).read_text())
    assert {name: written["search"][name] for name in _SEARCH} == _SEARCH
    assert written["model"]["eos_token_id"] == said["eos_token_id"]
    made = Made(bundle, base, decoder.tasks, decoder.auto)
    assert [check for check in made.checks() if check.how == "unchecked" or check.wrong] == []
    for name in ("repetition_penalty", "min_length"):
        other = damaged(bundle, tmp_path / name, put(GENAI, f"search.{name}", 1))
        assert list(made.wrong(other)) == [f"{GENAI}: search.{name}"]


def test_genai_opens_it_with_that_search(decoder: Made, tmp_path: Path) -> None:
    """GenAI alone, without eptx: the penalty keeps it from repeating itself as it would."""
    genai = pytest.importorskip("onnxruntime_genai")
    answers = []
    for penalty in (1.0, 1.9):
        base = shutil.copytree(decoder.base, tmp_path / f"base{penalty}")
        said = {"eos_token_id": 2, "pad_token_id": 0, "repetition_penalty": penalty}
        (base / "generation_config.json").write_text(json.dumps(said))
        adapter = write_lora(tmp_path / f"lora{penalty}", linear_shapes(base, ("down_proj",)), seed=2)
        bundle = export_bundle(base, [adapter], tmp_path / f"b{penalty}", ExportOptions(mode="static"))
        model = genai.Model(str(bundle.path))
        params = genai.GeneratorParams(model)
        params.set_search_options(max_length=24)
        generator = genai.Generator(model, params)
        generator.append_tokens([5, 17, 40])
        while not generator.is_done():
            generator.generate_next_token()
        got = [int(token) for token in generator.get_sequence(0)]
        assert got == _greedy(base, adapter, [5, 17, 40], len(got), penalty)
        answers.append(got)
    assert answers[0] != answers[1]


def _greedy(base: Path, adapter: Path, prompt: list[int], length: int, penalty: float) -> list[int]:
    """What PEFT's model generates in transformers."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = json.loads((adapter / "adapter_config.json").read_text()) | {"target_modules": ["down_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    ids = torch.tensor([prompt])
    settings = {"do_sample": False, "repetition_penalty": penalty, "max_length": length, "eos_token_id": 2}
    answer = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **settings)
    return [int(token) for token in answer[0]]


def test_settings_of_a_graph_that_the_user_gave_count(decoder: Made, tmp_path: Path) -> None:
    """A user may shorten the cache in the file beside the graph; the model's own sizes stay the base's."""
    given = copy_bundle(decoder.bundle.path, tmp_path / "given")
    put(GENAI, "search.max_length", 64)(given)
    bundle = damaged(decoder.bundle, tmp_path / "b", put(GENAI, "search.max_length", 64))
    onnx = given / "model.onnx"
    found = compare_files(bundle, decoder.base, decoder.model, decoder.tasks, base_onnx=onnx, off=decoder.off)
    assert [check for check in found if check.wrong] == []
    assert list(decoder.wrong(bundle)) == [f"{GENAI}: search.max_length"]


def test_an_encoder_has_no_such_file(encoder: Made, decoder: Made, tmp_path: Path) -> None:
    copy = damaged(encoder.bundle, tmp_path / "b", lambda folder: shutil.copy(decoder.bundle.path / GENAI, folder))
    assert encoder.wrong(copy) == {GENAI: "is there, and the model is no decoder"}
