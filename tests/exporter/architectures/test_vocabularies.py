"""Tasks with vocabularies of different sizes: `eptx.json` says them, requests are held to them, validation compares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

from eptx.bundle import Bundle, read_bundle
from eptx.calibration import export_bundle
from eptx.errors import DataError, RequestError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.exporter.validation.contents.compare import compare_contents
from eptx.exporter.validation.reference.files import find_reference
from eptx.files.strict_json import dump_json
from eptx.runtime import Session
from tests.support.decoders import write_tokenizer

_SIZES: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 36}
_LLAMA = {**_SIZES, "num_hidden_layers": 1, "num_key_value_heads": 2, "max_position_embeddings": 250}
_BERT = {**_SIZES, "num_hidden_layers": 1, "max_position_embeddings": 40}
#: task -> how many tokens it was trained with; one has fewer than the base.
_TOKENS = {"more": 63, "most": 65, "fewer": 57}


def _write(folder: Path, config: Any, trained: str, **settings: Any) -> Path:
    """A base with a tokenizer of all words, and adapters on it that were trained with other vocabularies."""
    torch.manual_seed(0)
    with quiet():
        getattr(transformers, trained)(config).save_pretrained(folder / "base")
        write_tokenizer(folder / "base", max(_TOKENS.values()))
        for seed, (task, size) in enumerate(_TOKENS.items()):
            torch.manual_seed(seed)
            model = getattr(transformers, trained).from_pretrained(folder / "base")
            model.resize_token_embeddings(size)
            adapted: Any = peft.get_peft_model(model, peft.LoraConfig(r=2 + seed, init_lora_weights=False, **settings))
            for name, parameter in adapted.named_parameters():
                if parameter.requires_grad and "lora_" not in name:
                    parameter.data.normal_(0, 0.4)
            adapted.save_pretrained(folder / task)
    return folder


def _export(folder: Path) -> Bundle:
    adapters = [folder / task for task in _TOKENS]
    return export_bundle(folder / "base", adapters, folder / "b", ExportOptions(mode="conditioned", tasks=[*_TOKENS]))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.LlamaConfig(**_LLAMA, tie_word_embeddings=True)
    saved = {"modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    folder = _write(tmp_path_factory.mktemp("decoder"), config, "LlamaForCausalLM", **saved)
    _export(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    saved = {"modules_to_save": ["word_embeddings"], "target_modules": ["query"]}
    folder = _write(tmp_path_factory.mktemp("encoder"), transformers.BertConfig(**_BERT), "BertModel", **saved)
    _export(folder)
    return folder


def _peft(folder: Path, task: str, trained: str, **inputs: Any) -> Any:
    """What PEFT's own model gives; of the base, where no adapter has this name."""
    with quiet(), torch.no_grad():
        model: Any = getattr(transformers, trained).from_pretrained(folder / "base")
        if task in _TOKENS:
            model.resize_token_embeddings(_TOKENS[task])
            model = peft.PeftModel.from_pretrained(model, folder / task)
        return model.eval()(**{name: torch.tensor(array) for name, array in inputs.items()})


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_each_task_says_how_many_tokens_it_has(kind: str, request: pytest.FixtureRequest) -> None:
    bundle = read_bundle(request.getfixturevalue(kind) / "b")
    assert bundle.manifest.vocab_size == 65
    said = {task.name: task.vocab_size for task in bundle.manifest.tasks}
    assert said == {"more": 63, "most": None, "fewer": 57, "base": 60}
    assert bundle.manifest.shared_vocab_size == 57
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    assert report.passed, report.reason
    names = [check.name for check in report.checks if check.name.endswith(": vocab_size")]
    assert names == ["eptx.json: vocab_size", *(f"eptx.json: task {task}: vocab_size" for task in said if said[task])]


@pytest.mark.parametrize(("task", "size"), [("more", 64), ("more", None), ("most", 64)])
def test_a_wrong_size_is_found(task: str, size: int | None, encoder: Path, tmp_path: Path) -> None:
    wrong = Path(shutil.copytree(encoder / "b", tmp_path / "b"))
    said = json.loads((wrong / "eptx.json").read_text())
    next(each for each in said["tasks"] if each["name"] == task)["vocab_size"] = size
    (wrong / "eptx.json").write_bytes(dump_json(said))
    bundle = read_bundle(wrong)
    options = ValidateOptions(base=encoder / "base", adapters=[encoder / name for name in _TOKENS])
    checks = compare_contents(bundle, find_reference(bundle.manifest, options)).checks
    assert [check.name for check in checks if check.wrong] == [f"eptx.json: task {task}: vocab_size"]


def test_tokens_of_each_task_are_those_of_peft(encoder: Path, decoder: Path) -> None:
    """The last token of each, mixed in one batch; what a mask hides may be a token of any task."""
    tasks = [*_TOKENS, "base"]
    last = [_TOKENS.get(task, 60) - 1 for task in tasks]
    ids = np.array([[5, token, 64] for token in last])
    mask = np.array([[1, 1, 0]] * len(tasks))
    for folder, trained, output in (
        (encoder, "BertModel", "last_hidden_state"),
        (decoder, "LlamaForCausalLM", "logits"),
    ):
        got = Session(folder / "b").run({"input_ids": ids, "attention_mask": mask}, task=tasks)[output]
        for row, task in enumerate(tasks):
            want = _peft(folder, task, trained, input_ids=ids[row : row + 1, :2])[output][0].numpy()
            np.testing.assert_allclose(got[row, :2, : want.shape[1]], want, atol=2e-5)


_LACKING = {
    "more": r"{} 63; task more has token ids 0 to 62$",
    "fewer": r"{} 57; task fewer has token ids 0 to 56$",
    "base": r"{} 60; task base has token ids 0 to 59$",
    "most": r"{} 65; token ids are 0 to 64$",
}


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_token_that_the_task_lacks_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    session = Session(request.getfixturevalue(kind) / "b")
    for task, said in _LACKING.items():
        token = {**_TOKENS, "base": 60}[task]
        with pytest.raises(RequestError, match=said.format(r"input input_ids\[1, 1\] is")):
            session.run({"input_ids": [[5, 56], [5, token]]}, task=["most", task])
        session.run({"input_ids": [[5, 56], [5, token - 1]]}, task=["most", task])
        if task != "most":
            with pytest.raises(RequestError, match=rf"{token}; task {task} has token ids"):
                session.run([f"w5 w{token}"], task=task)
        if session.manifest.generation is not None:
            with pytest.raises(RequestError, match=rf"^prompt 1 has token {token} at 1; .*ids .*0 to {token - 1}$"):
                session.generate([[5], [6, token]], task=["most", task], max_new_tokens=2)
            session.generate([[5], [6, token - 1]], task=["most", task], max_new_tokens=2)


def test_no_task_answers_with_a_token_that_it_lacks(decoder: Path) -> None:
    """Of the base's tokens as of those that other tasks added."""
    logits = Session(decoder / "b").run({"input_ids": [[5, 6]] * 4}, task=[*_TOKENS, "base"])["logits"]
    for row, size in enumerate([*_TOKENS.values(), 60]):
        assert (logits[row, :, size:] == -65504).all()
        assert (logits[row, :, :size] > -1000).all()


def test_texts_of_a_validation_are_held_to_it_too(encoder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"task": "most", "text": "w5 w64"}\n{"task": "base", "text": "w60 w5"}\n')
    with pytest.raises(DataError, match=r"^a text of base holds token id 60; the task has token ids 0 to 59$"):
        validate_bundle(encoder / "b", ValidateOptions(data=data, providers=["cpu"]))
