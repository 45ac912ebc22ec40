"""Wrong requests for text, wrong caches, and bundles whose generation is not what they say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx import Session, read_bundle
from eptx.calibration import export_bundle
from eptx.errors import BundleError, RequestError
from eptx.exporter import ExportOptions
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_tucka
from tests.malformed.scene import Cli, check_refusal
from tests.support.decoders import write_decoder
from tests.support.tiny_bundle import write_tiny

PROMPT = [10, 11, 12]
GOOD = {"task": "task0", "max_new_tokens": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ept/`` and ``tucka/`` (routing prompt), bundles of a decoder that reads 32 tokens."""
    root = tmp_path_factory.mktemp("generation")
    base = write_decoder("llama", root / "base", max_position_embeddings=32)
    shapes = linear_shapes(base, ("q_proj", "o_proj"))
    ept = write_ept(root / "ept adapter", shapes, seed=1, tasks=2)
    tucka = write_tucka(root / "tucka adapter", shapes, seed=2)
    export_bundle(base, [ept], root / "ept", ExportOptions(mode="conditioned", top_k=2))
    export_bundle(base, [tucka], root / "tucka", ExportOptions(mode="dynamic", routing="prompt"))
    return root


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return Session(folder / "ept", threads=1)


@pytest.fixture(scope="module")
def routed(folder: Path) -> Session:
    return Session(folder / "tucka", threads=1)


#: name -> prompts, changes of the settings, what is said.
REQUESTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "negative temperature": ([PROMPT], {"temperature": -0.1}, "temperature must not be negative, it is -0.1"),
    "temperature that is no number": (
        [PROMPT],
        {"temperature": float("nan")},
        "temperature must be a number, it is nan",
    ),
    "endless temperature": ([PROMPT], {"temperature": float("inf")}, "temperature must be a number, it is inf"),
    "temperature in words": ([PROMPT], {"temperature": "hot"}, "temperature must be a number, it is 'hot'"),
    "top_k 0": ([PROMPT], {"top_k": 0}, "top_k must be an integer from 1 to"),
    "top_k past 32 bits": ([PROMPT], {"top_k": 2**40}, "top_k must be an integer from 1 to"),
    "top_k that is a fraction": ([PROMPT], {"top_k": 1.5}, "top_k must be an integer from 1 to"),
    "top_p 0": ([PROMPT], {"top_p": 0}, "top_p must be above 0 and at most 1, it is 0"),
    "top_p past 1": ([PROMPT], {"top_p": 1.1}, "top_p must be above 0 and at most 1, it is 1.1"),
    "top_p that is no number": ([PROMPT], {"top_p": float("nan")}, "top_p must be a number, it is nan"),
    "no tokens wanted": ([PROMPT], {"max_new_tokens": 0}, "max_new_tokens must be an integer from 1 to"),
    "tokens that are true": ([PROMPT], {"max_new_tokens": True}, "max_new_tokens must be an integer from 1 to"),
    "negative seed": ([PROMPT], {"seed": -1}, "seed must be an integer from 0 to"),
    "empty stop text": ([PROMPT], {"stop": ["a", ""]}, "a stop text is empty"),
    "one empty stop text": ([PROMPT], {"stop": ""}, "a stop text is empty"),
    "stop of numbers": ([PROMPT], {"stop": [1]}, "stop must be a text or a list of texts"),
    "stop that is a number": ([PROMPT], {"stop": 7}, "stop must be a text or a list of texts"),
    "no prompts": ([], {}, "there are no prompts"),
    "empty prompt": ([PROMPT, []], {}, "prompt 1 has no tokens"),
    "flat ids": (PROMPT, {}, "prompt 0 is neither a text nor a row of token ids"),
    "ids and text": ([PROMPT, "w5"], {}, "prompt 1 is neither a text nor a row of token ids"),
    "a pair": ([("w5", "w6")], {}, "prompt 0 is neither a text nor a row of token ids"),
    "fractions": ([[1.5, 2.5]], {}, "prompt 0 is neither a text nor a row of token ids"),
    "rows in rows": ([[[1, 2], [3]]], {}, "prompt 0 is neither a text nor a row of token ids"),
    "bytes": (b"w5", {}, "prompts must be texts or rows of token ids, not bytes"),
    "a number": (7, {}, "prompts must be texts or rows of token ids, not int"),
    "token past the last": ([PROMPT, [5, 120]], {}, "prompt 1 has token 120 at 1; token ids are 0 to 119"),
    "negative token": ([[5, -1]], {}, "prompt 0 has token -1 at 1; token ids are 0 to 119"),
    "token past 64 bits": ([[2**70]], {}, "prompt 0 is neither a text nor a row of token ids"),
    "padding at the end": ([[5, 0]], {}, "prompt 0 ends in token 0, which this bundle pads with"),
    "too long a prompt": ([[5] * 33], {}, "prompt 0 has 33 tokens; the model reads at most 32"),
    "a full context": ([[5] * 32], {"max_new_tokens": None}, "prompt 0 has 32 tokens and 1 more do not fit"),
    "too long an answer": (
        [PROMPT, [5] * 30],
        {},
        "prompt 1 has 30 tokens and 3 more do not fit",
    ),
    "too long a text": ("w5 " * 40, {}, "tokens; the model reads at most 32"),
    "too many rows": ([PROMPT] * 33, {}, "33 prompts in one batch; GenAI takes 32"),
    "unknown task": ([PROMPT], {"task": "rte"}, "no task 'rte'; this bundle has task0, task1, base"),
    "no task": ([PROMPT], {"task": None}, "name a task: task0, task1, base"),
    "an inferred task": ([PROMPT], {"task": "auto"}, "no task 'auto'"),
    "too few tasks": ([PROMPT] * 3, {"task": ["task0", "task1"]}, "2 tasks for a batch of 3"),
    "too many tasks": ([PROMPT], {"task": ["task0", "task1"]}, "2 tasks for a batch of 1"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_refused(session: Session, name: str) -> None:
    prompts, changes, said = REQUESTS[name]
    with pytest.raises(RequestError) as e:
        list(session.stream(prompts, **(GOOD | changes)))
    assert said in str(e.value) and "\n" not in str(e.value)
    assert e.value.exit_code == 3
    assert len(session.generate([PROMPT], **GOOD).token_ids[0]) == 3  # type: ignore[arg-type]


def test_refused_before_the_first_token(session: Session) -> None:
    """A wrong request is refused by the call, not by the first look at its answer."""
    with pytest.raises(RequestError, match="top_p"):
        session.stream([PROMPT], "task0", top_p=2.0)


def test_a_bundle_that_does_not_generate(tmp_path: Path) -> None:
    session = Session(write_tiny(tmp_path / "b", tokenizer=True), threads=1)
    with pytest.raises(RequestError, match="does not generate text"):
        session.generate("good film", "sst2")


def _cache(length: int = 2, rows: int = 1, **changes: Any) -> dict[str, Any]:
    names = [f"past_key_values.{layer}.{kind}" for layer in (0, 1) for kind in ("key", "value")]
    return {name: np.zeros((rows, 2, length, 16), np.float32) for name in names} | changes


#: name -> inputs besides input_ids [1, 3], what is said.
INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "a mask with a hole": ({"attention_mask": [[1, 0, 1]]}, "input attention_mask has a hole"),
    "an empty mask": ({"attention_mask": [[0, 0, 0]]}, "hides all of row 0"),
    "too short a mask": ({"attention_mask": [[1, 1]]}, "has length 2; cache and input_ids have 0 + 3"),
    "a mask without the cache": (
        _cache() | {"attention_mask": [[1, 1, 1]]},
        "cache and input_ids have 2 + 3",
    ),
    "padding after a cache": (_cache() | {"attention_mask": [[1, 1, 1, 1, 0]]}, "hides tokens that follow a cache"),
    "half a cache": ({"past_key_values.0.key": np.zeros((1, 2, 2, 16), np.float32)}, "is missing; give all of"),
    "a cache of other rows": (_cache(rows=2), "batch"),
    "a cache of two lengths": (
        _cache(**{"past_key_values.1.value": np.zeros((1, 2, 3, 16), np.float32)}),
        "past_sequence_length",
    ),
    "a cache of more heads": (
        _cache(**{"past_key_values.1.value": np.zeros((1, 3, 2, 16), np.float32)}),
        "has 3 in dimension 1; the model takes 2",
    ),
    "a cache of no rank": (_cache(**{"past_key_values.1.value": np.zeros(3, np.float32)}), "has 1 dimensions"),
    "a cache of integers": (_cache(**{"past_key_values.1.value": np.zeros((1, 2, 2, 16), int)}), "takes float32"),
    "a cache that is no number": (
        _cache(**{"past_key_values.1.value": np.full((1, 2, 2, 16), np.nan, np.float32)}),
        "NaN or infinite",
    ),
    "a cache past the context": (_cache(30), "cache and input_ids have 33 tokens a row; the model reads at most 32"),
    "a cache of no name": (
        {"past_key_values.7.key": np.zeros((1, 2, 2, 16), np.float32)},
        "no input 'past",
    ),
    "a route": ({"route_group": [0]}, "no input 'route_group'"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_refused_inputs(session: Session, name: str) -> None:
    inputs, said = INPUTS[name]
    with pytest.raises(RequestError) as e:
        session.run({"input_ids": [PROMPT], **inputs}, "task0")
    assert said in str(e.value) and "\n" not in str(e.value)
    assert session.run({"input_ids": [PROMPT]}, "task0")["logits"].shape == (1, 3, 120)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"route_group": [0]}, "input route_weights is missing"),
        ({"route_weights": [[0.5, 0.5]]}, "input route_group is missing"),
        ({"route_group": [-2], "route_weights": [[0.5, 0.5]]}, "values under -1"),
        ({"route_group": [0], "route_weights": [[0.5]]}, "route_weights has 1 in dimension 1"),
        ({"route_group": [99], "route_weights": [[0.5, 0.5]]}, "ONNX Runtime fails on this request"),
    ],
)
def test_refused_routes(routed: Session, inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        routed.run({"input_ids": [PROMPT], **inputs})


# bundles


def _genai(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda bundle: _edit(bundle / "genai_config.json", change)


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda bundle: _edit(bundle / "eptx.json", change)


def _edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    if path.name != "eptx.json":
        _edit(path.parent / "eptx.json", lambda m: m["files"][path.name].update(size=path.stat().st_size))


def _encoder(m: dict[str, Any], file: str) -> None:
    m["generation"] |= {"kind": "encoder-decoder", "start": 1}
    m["encoder"] = {"file": file, "inputs": m["inputs"][:1], "outputs": m["outputs"][:1], "modules": {}}


#: name -> damage, what is said.
BUNDLES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a library": (
        _genai(lambda c: c["model"]["decoder"]["session_options"].update(custom_ops_library="evil.so")),
        "genai_config.json: sets custom_ops_library",
    ),
    "a library of a part that is not there": (
        _genai(lambda c: c["model"].update(vision=[{"session_options": {"custom_ops_library": "evil.so"}}])),
        "genai_config.json: sets custom_ops_library",
    ),
    "a file to write": (
        _genai(lambda c: c["model"]["decoder"]["session_options"].update(enable_profiling="/tmp/x")),
        "genai_config.json: sets enable_profiling",
    ),
    "another model": (
        _genai(lambda c: c["model"]["decoder"].update(filename="../other/model.onnx")),
        "genai_config.json: names a model that is not model.onnx",
    ),
    "another model of a part": (
        _genai(lambda c: c["model"].update(embedding={"filename": "embedding.onnx"})),
        "genai_config.json: names a model that is not model.onnx",
    ),
    "a provider that loads libraries": (
        _genai(
            lambda c: c["model"]["decoder"]["session_options"].update(
                provider_options=[{"qnn": {"backend_path": "evil.so"}}]
            )
        ),
        "genai_config.json: names an execution provider that is not one of cpu, cuda",
    ),
    "no generation kind": (_manifest(lambda m: m["generation"].update(kind="oracle")), "kind must be one of"),
    "no end": (_manifest(lambda m: m["generation"].update(eos=[])), "eos must be a list of token ids"),
    "an end past the vocabulary": (
        _manifest(lambda m: m["generation"].update(eos=[120])),
        "names token 120",
    ),
    "padding past the vocabulary": (_manifest(lambda m: m["generation"].update(pad=500)), "generation names token 500"),
    "a decoder with a start": (_manifest(lambda m: m["generation"].update(start=1)), "a decoder has none"),
    "an encoder-decoder without an encoder": (
        _manifest(lambda m: m["generation"].update(kind="encoder-decoder", start=1)),
        "an encoder-decoder has an encoder",
    ),
    "an encoder that is not there": (_manifest(lambda m: _encoder(m, "encoder.onnx")), "is not a model of the bundle"),
    "an encoder that is the decoder": (_manifest(lambda m: _encoder(m, "model.onnx")), "is not a model of the bundle"),
    "an encoder that is no model": (_manifest(lambda m: _encoder(m, "config.json")), "is not a model of the bundle"),
    "half a cache": (
        _manifest(lambda m: m["inputs"].remove(next(i for i in m["inputs"] if "past" in i["name"]))),
        "do not fit each other",
    ),
    "a cache of another type": (
        _manifest(lambda m: next(i for i in m["inputs"] if "past" in i["name"]).update(dtype="float16")),
        "do not fit each other",
    ),
    "a cache of another rank": (
        _manifest(lambda m: [i.update(shape=["batch", 2]) for i in m["inputs"] + m["outputs"] if ".key" in i["name"]]),
        "do not fit each other",
    ),
    "no cache": (
        _manifest(lambda m: m.update({k: [i for i in m[k] if "." not in i["name"]] for k in ("inputs", "outputs")})),
        r"a model that generates has inputs past_key_values\.\*",
    ),
    "no logits": (
        _manifest(lambda m: m["outputs"].remove(next(o for o in m["outputs"] if o["name"] == "logits"))),
        "a model that generates has an output logits",
    ),
    "no mask": (
        _manifest(lambda m: m["inputs"].remove(next(i for i in m["inputs"] if i["name"] == "attention_mask"))),
        "a decoder has inputs input_ids and attention_mask",
    ),
    "a route that is not kept": (_manifest(lambda m: m.update(routing="prompt")), "do not fit the routing prompt"),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_damaged_bundles(folder: Path, tmp_path: Path, name: str) -> None:
    damage, said = BUNDLES[name]
    bundle = Path(shutil.copytree(folder / "ept", tmp_path / "b"))
    damage(bundle)
    with pytest.raises(BundleError, match=said) as e:
        read_bundle(bundle, verify=False)
    assert "\n" not in str(e.value)


def test_a_route_that_nobody_asked_for(folder: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(folder / "tucka", tmp_path / "b"))
    _edit(bundle / "eptx.json", lambda m: m.update(routing="row"))
    with pytest.raises(BundleError, match="route_group and route_group_used do not fit the routing row"):
        read_bundle(bundle, verify=False)


#: name -> damage, what is said when text is wanted.
MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no configuration": (lambda b: _drop(b, "genai_config.json"), "genai_config.json: missing"),
    "a configuration of nothing": (_genai(lambda c: c.pop("model")), "not the configuration of a decoder"),
    "a configuration of another type": (_genai(lambda c: c["model"].update(type="no such")), "GenAI does not load it"),
    "a larger vocabulary": (_genai(lambda c: c["model"].update(vocab_size=500)), "GenAI fails on this request"),
    "a shorter context": (_genai(lambda c: c["model"].update(context_length=2)), "GenAI fails on this request"),
    "a model that is damaged": (lambda b: _damage(b), "GenAI does not load it"),
}


def _drop(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    _edit(bundle / "eptx.json", lambda m: m["files"].pop(name))


def _damage(bundle: Path) -> None:
    """An operator that nobody has; found out by whoever opens the model."""
    data = (bundle / "model.onnx").read_bytes()
    assert b"GroupQueryAttention" in data
    (bundle / "model.onnx").write_bytes(data.replace(b"GroupQueryAttention", b"GroupQueryAttentiom"))


@pytest.mark.parametrize("name", MODELS)
def test_models_that_do_not_load(folder: Path, tmp_path: Path, name: str) -> None:
    damage, said = MODELS[name]
    bundle = Path(shutil.copytree(folder / "ept", tmp_path / "b"))
    damage(bundle)
    session = Session(bundle, threads=1, verify=False)
    with pytest.raises((BundleError, RequestError), match=said) as e:
        session.generate([PROMPT], "task0", max_new_tokens=2)
    assert "\n" not in str(e.value)


# the command line


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("w5", "--task", "task0", "--temperature", "-1"), 3, "temperature must not be negative"),
        (("w5", "--task", "task0", "--top-k", "0"), 3, "top_k must be"),
        (("w5", "--task", "task0", "--top-p", "nan"), 3, "top_p must be a number"),
        (("w5", "--task", "task0", "--stop", ""), 3, "a stop text is empty"),
        (("w5", "w6", "--task", "task0", "--max-new-tokens", "0"), 3, "max_new_tokens must be"),
        (("w5", "--task", "rte"), 3, "no task 'rte'"),
        (("w5 " * 40, "--task", "task0"), 3, "the model reads at most 32"),
        (("w5",), 3, "name a task"),
    ],
)
def test_run_refuses(folder: Path, cli: Cli, arguments: tuple[str, ...], code: int, said: str) -> None:
    check_refusal(cli("run", folder / "ept", *arguments), code, said)


def test_run_refuses_settings_of_text(cli: Cli, tmp_path: Path) -> None:
    """Of a classifier they are a wrong use of the command."""
    write_tiny(tmp_path / "b", tokenizer=True)
    result = cli("run", tmp_path / "b", "good film", "--task", "sst2", "--top-k", "3")
    assert result.code == 2 and result.out == ""
    assert "--top-k is for language models" in result.err


def test_run_refuses_pairs(folder: Path, cli: Cli, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "w5", "text_pair": "w6", "task": "task0"}\n')
    check_refusal(cli("run", folder / "ept", "--input", rows), 3, "a language model has no text_pair")
