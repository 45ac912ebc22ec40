"""Encoder-decoders that are no T5: their answers are those of PEFT's own `generate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.numpy import load_file, save_file

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import NotSupportedError, RequestError
from eptx.exporter import ExportOptions
from eptx.exporter.bases.loaders.two_graphs.answers import answer_settings
from eptx.exporter.quiet import quiet
from eptx.exporter.validation import validate_bundle
from eptx.runtime import Session
from tests.matrix.made import Made, make, names
from tests.matrix.settings import PLAIN
from tests.matrix.table import row

_NEW = 9
#: Settings of ``generation_config.json``, none of which leaves the answers as they are.
_BART: dict[str, Any] = {
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 2,
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 2,
    "min_length": 6,
    "repetition_penalty": 1.2,
    "bad_words_ids": [[5]],
    "begin_suppress_tokens": [9, 11],
}
_WHISPER: dict[str, Any] = {
    "lang_to_id": {"<|en|>": 40, "<|de|>": 41, "<|fr|>": 42},
    "task_to_id": {"transcribe": 50, "translate": 51},
    "no_timestamps_token_id": 52,
    "is_multilingual": True,
    "suppress_tokens": [3, 4],
    "begin_suppress_tokens": [20, 21],
}


def _made(name: str, settings: dict[str, Any], folder: Path) -> tuple[Made, Bundle]:
    made = make(row(name), PLAIN, folder, count=2)
    for adapter in made.adapters:  # so strong that each task has an answer of its own
        file = adapter / "adapter_model.safetensors"
        strong = {key: tensor * 30 if "lora_B" in key else tensor for key, tensor in load_file(file).items()}
        save_file(strong, file, metadata={"format": "pt"})
    path = made.base / "generation_config.json"
    own = json.loads(path.read_text())
    own.pop("_from_model_config", None)  # transformers would not read more than a model's configuration has
    path.write_text(json.dumps(own | settings))
    options = ExportOptions(mode="conditioned", tasks=names(made))
    return made, export_bundle(made.base, made.adapters, folder / "bundle", options)


def _expected(trained: str, made: Made, task: str, inputs: dict[str, np.ndarray], tokens: int) -> list[list[int]]:
    with quiet():
        model: Any = getattr(transformers, trained).from_pretrained(made.base)
        if task != "base":
            model = PeftModel.from_pretrained(model, made.base.parent / task)
        model.eval()
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        found: list[list[int]] = model.generate(**tensors, do_sample=False, num_beams=1, max_new_tokens=tokens).tolist()
    return found


def _until_end(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def test_texts_are_answered_as_generate_does(tmp_path: Path) -> None:
    made, bundle = _made("BART", _BART, tmp_path)
    texts = {name: made.inputs[name][:3] for name in ("input_ids", "attention_mask")}
    rows = [ids[mask == 1].tolist() for ids, mask in zip(texts["input_ids"], texts["attention_mask"], strict=True)]
    tasks = ["task1", "base", "task0"]
    answers = Session(bundle).generate(rows, task=tasks, max_new_tokens=_NEW).token_ids
    for index, task in enumerate(tasks):
        alone = {"input_ids": np.array([rows[index]]), "attention_mask": np.ones((1, len(rows[index])), np.int64)}
        (whole,) = _expected("BartForConditionalGeneration", made, task, alone, _NEW + 1)
        assert whole[:2] == [2, 7]  # the start, and the forced token, are no part of an answer
        assert list(answers[index]) == _until_end(whole[2:], 2), task
    assert len(set(answers)) > 1
    assert bundle.manifest.generation is not None and bundle.manifest.generation.longest == 40
    with pytest.raises(RequestError, match="an answer has at most 39 tokens; max_new_tokens is 40"):
        Session(bundle).generate(rows, task="task0", max_new_tokens=40)


def test_sound_is_answered_as_generate_does(tmp_path: Path) -> None:
    made, bundle = _made("Whisper", _WHISPER, tmp_path)
    sound = {"input_features": made.inputs["input_features"]}
    session = Session(bundle)
    for task in ("task0", "task1", "base"):
        answers = session.generate(sound, task=task, max_new_tokens=_NEW).token_ids
        expected = _expected("WhisperForConditionalGeneration", made, task, sound, _NEW)
        assert [list(answer) for answer in answers] == [_until_end(own, 2) for own in expected], task
    mixed = session.generate(sound, task=["task0", "task1", "base", "task0"], max_new_tokens=_NEW).token_ids
    alone = session.generate(sound, task="task1", max_new_tokens=_NEW).token_ids
    assert mixed[1] == alone[1] != mixed[0]
    for wrong, says in (("a text", "reads no text; give"), ({"input_features": np.zeros((1, 6, 17))}, "takes 18")):
        with pytest.raises(RequestError, match=says):
            session.generate(wrong, task="task0")
    report = validate_bundle(bundle.path)
    assert report.passed, report.reason


@pytest.mark.parametrize(
    ("setting", "value"),
    [("encoder_repetition_penalty", 1.5), ("bad_words_ids", [[5, 6]]), ("return_timestamps", True)],
)
def test_settings_without_a_counterpart(setting: str, value: Any, tmp_path: Path) -> None:
    own = {"eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 2, "no_timestamps_token_id": 5}
    (tmp_path / "generation_config.json").write_text(json.dumps(own | {setting: value}))
    with pytest.raises(NotSupportedError, match=rf"generation_config\.json: {setting}"):
        answer_settings(tmp_path, {"vocab_size": 60})
