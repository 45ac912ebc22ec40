"""What a text becomes: what transformers and GenAI make of it, where the text has its special tokens and where not."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from eptx import Session
from eptx.bundle import Bundle
from eptx.errors import RequestError
from eptx.exporter.validation.base.tokenizer import BaseTokenizer
from tests.malformed.scene import Cli
from tests.runtime.serving.servers import serving
from tests.support.chat import MESSAGES, write_chat_bundle, write_chat_tokenizer
from tests.support.smollm2 import smollm2

RAW = ["Is it raining?", " <s>", "a <s> b", "<|user|>", "</s>"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_chat_bundle(tmp_path_factory.mktemp("chat") / "b")


@pytest.fixture(scope="module", params=["begun", "bare", "begun and ended", "pieces"])
def made(bundle: Bundle, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The bundle with a tokenizer of each kind, and that tokenizer as transformers has it."""
    folder = Path(shutil.copytree(bundle.path, tmp_path_factory.mktemp("kind") / "b"))
    pieces = request.param == "pieces"
    tokenizer = write_chat_tokenizer(folder, "begun" if pieces else request.param, pieces=pieces)
    return Session(replace(bundle, path=folder), threads=1), tokenizer


def chat(tokenizer: Any, *, tokenize: bool) -> Any:
    return tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=tokenize, return_dict=False)


def ids(session: Session, texts: list[str], **options: Any) -> list[list[int]]:
    """The token ids that the model is given."""
    return [list(row) for row in session.check_prompts(texts, None, **options).prompts]


def test_a_chat_prompt_is_what_the_template_gives(made: tuple[Session, Any]) -> None:
    session, tokenizer = made
    text, wanted = chat(tokenizer, tokenize=False), chat(tokenizer, tokenize=True)
    assert wanted.count(tokenizer.bos_token_id) == 1
    assert ids(session, [text]) == [wanted]
    assert BaseTokenizer(tokenizer, None, cut=False, prompts=True).encode([text])["input_ids"] == [wanted]
    answers = [session.generate(prompts, max_new_tokens=20).token_ids for prompts in (text, [wanted])]
    assert answers[0] == answers[1]
    assert session.run(text)["logits"].shape[1] == len(wanted)
    np.testing.assert_array_equal(session.run(text)["logits"], session.run({"input_ids": [wanted]})["logits"])


def test_other_prompts_get_the_special_tokens_of_the_tokenizer(made: tuple[Session, Any]) -> None:
    session, tokenizer = made
    wanted = [tokenizer(text).input_ids for text in RAW]
    assert ids(session, RAW) == wanted
    assert BaseTokenizer(tokenizer, None, cut=False, prompts=True).encode(RAW)["input_ids"] == wanted


@pytest.mark.parametrize("special", [True, False])
def test_a_caller_may_say(made: tuple[Session, Any], special: bool) -> None:
    session, tokenizer = made
    texts = [*RAW, chat(tokenizer, tokenize=False), "<s>"]
    wanted = [tokenizer(text, add_special_tokens=special).input_ids for text in texts]
    assert ids(session, texts, add_special_tokens=special) == wanted
    answer = session.generate(texts[-2], max_new_tokens=20, add_special_tokens=special)
    assert answer.token_ids == session.generate([wanted[-2]], max_new_tokens=20).token_ids
    with pytest.raises(RequestError, match="add_special_tokens must be true or false"):
        session.generate("a", add_special_tokens=1)  # type: ignore[arg-type]


def test_genai_reads_a_chat_prompt_so(bundle: Bundle) -> None:
    genai = importlib.import_module("onnxruntime_genai")
    tokenizer = genai.Tokenizer(genai.Model(str(bundle.path)))
    text = tokenizer.apply_chat_template('[{"role": "user", "content": "Is it raining?"}]', add_generation_prompt=True)
    assert ids(Session(bundle), [text]) == [[int(token) for token in tokenizer.encode(text)]]


def test_smollm2_has_no_special_tokens_around(tmp_path: Path, bundle: Bundle) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "b"))
    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    tokenizer.save_pretrained(folder)
    manifest = replace(bundle.manifest, vocab_size=len(tokenizer))
    session = Session(replace(bundle, path=folder, manifest=manifest))
    text = chat(tokenizer, tokenize=False)
    assert text.startswith(tokenizer.bos_token)
    assert ids(session, [text, "Once"]) == [chat(tokenizer, tokenize=True), tokenizer("Once").input_ids]


def test_what_t5_puts_behind_a_text_stays(bundle: Bundle, tmp_path: Path) -> None:
    """Nothing is put in front, so that no text begins with it."""
    folder = Path(shutil.copytree(bundle.path, tmp_path / "b"))
    tokenizer = write_chat_tokenizer(folder, "ended")
    session, texts = Session(replace(bundle, path=folder)), [*RAW, "a</s>"]
    assert ids(session, texts) == [tokenizer(text).input_ids for text in texts]


def test_the_command_line_has_the_option(bundle: Bundle, cli: Cli) -> None:
    session = Session(bundle)
    for option, special in (("--add-special-tokens", True), ("--no-special-tokens", False)):
        wanted = session.generate("Is it", max_new_tokens=9, add_special_tokens=special).texts[0]
        result = cli("run", bundle.path, "Is it", "--max-new-tokens", "9", option, "--json")
        assert result.code == 0
        assert [row["answer"] for row in json.loads(result.out)] == [wanted]


def test_over_http(bundle: Bundle) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bundle.path)
    text, session = chat(tokenizer, tokenize=False), Session(bundle, threads=1)
    whole: list[int] = chat(tokenizer, tokenize=True)
    options: tuple[dict[str, bool], ...] = ({}, {"add_special_tokens": False}, {"add_special_tokens": True})
    wanted = [session.generate([row], max_new_tokens=20).texts[0] for row in (whole, whole, [1, *whole])]
    assert len(set(wanted)) == 2
    with serving(bundle.path.parent, f"chat={bundle.path}") as server:
        for verb in ("generate", "generate_stream"):
            bodies = [
                server.call(
                    "POST",
                    f"/v2/models/chat/{verb}",
                    {"text_input": text, "parameters": {"max_tokens": 20, "task": "chat"} | option},
                )[2].decode()
                for option in options
            ]
            events = [[json.loads(part.removeprefix("data: ")) for part in b.strip().split("\n\n")] for b in bodies]
            assert ["".join(event["text_output"] for event in row) for row in events] == wanted


def test_how_answers_are_drawn_is_for_the_call_to_say(bundle: Bundle, tmp_path: Path) -> None:
    """Not for the files of the base, or of GenAI: greedy unless a temperature is given."""
    wanted = Session(bundle).generate(["Is it?", "a"], max_new_tokens=30)
    folder = Path(shutil.copytree(bundle.path, tmp_path / "b"))
    drawn = {"do_sample": True, "temperature": 2.0, "top_k": 5, "top_p": 0.5, "repetition_penalty": 1.9, "num_beams": 3}
    config = json.loads((folder / "genai_config.json").read_text())
    config["search"] |= drawn | {"min_length": 20, "no_repeat_ngram_size": 1}
    (folder / "genai_config.json").write_text(json.dumps(config))
    said = {"max_new_tokens": 3, "repetition_penalty": 1.9}
    (folder / "generation_config.json").write_text(json.dumps(drawn | said))
    assert Session(replace(bundle, path=folder)).generate(["Is it?", "a"], max_new_tokens=30) == wanted
