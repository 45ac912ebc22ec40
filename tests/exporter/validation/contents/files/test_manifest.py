"""Every field of ``eptx.json`` that has a source: honest ones pass, changed ones are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from eptx.bundle import Task
from eptx.exporter.validation.base.lookups import Lookups, lookups
from eptx.exporter.validation.contents.files import ExpectedTask
from eptx.exporter.validation.contents.files.tasks import compare_tasks
from tests.exporter.validation.contents.files.made import Made, damaged, put

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 60,
    "max_position_embeddings": 34,
}
_RELATIVE = {"position_biased_input": False, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
_TINY = {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32}


def test_an_honest_encoder(encoder: Made) -> None:
    checks = encoder.checks()
    assert [check for check in checks if check.wrong or check.how != "compared"] == []
    assert len({check.name for check in checks}) == len(checks)


def test_an_honest_decoder(decoder: Made) -> None:
    checks = decoder.checks()
    assert [check for check in checks if check.wrong] == []
    # what `eptx add` reads, and no session does
    assert {check.name for check in checks if check.how != "compared"} == {"adapters.json", "model.base"}


@pytest.mark.parametrize(
    ("keys", "value", "name", "said"),
    [
        ("model_type", "roberta", "model_type", "says 'roberta'; the base is 'bert'"),
        ("vocab_size", 150, "vocab_size", "says 150; the base knows 200 tokens"),
        ("vocab_size", None, "vocab_size", "says None; the base knows 200 tokens"),
        ("max_length", 63, "max_length", "says 63; the base reads 64 tokens at most"),
        ("max_length", 512, "max_length", "says 512; the base reads 64 tokens at most"),
        ("max_length", None, "max_length", "says None; the base reads 64 tokens at most"),
        ("onnxruntime.version", "1.14", "onnxruntime.version", "says 1.14; the models need 1.16"),
        ("onnxruntime.version", "1.20", "onnxruntime.version", "says 1.20; the models need 1.16"),
        ("onnxruntime.ir_version", 10, "onnxruntime.ir_version", "says 10; the models have 9"),
        ("onnxruntime.opset", 20, "onnxruntime.opset", "says 20; the models have 18"),
    ],
)
def test_what_the_model_reads(encoder: Made, tmp_path: Path, keys: str, value: Any, name: str, said: str) -> None:
    assert encoder.wrong(damaged(encoder.bundle, tmp_path / "b", put("eptx.json", keys, value))) == {
        f"eptx.json: {name}": said
    }


@pytest.mark.parametrize(
    ("keys", "value", "name"),
    [
        ("generation.eos", [2], "generation.eos"),
        ("generation.eos", [2, 5, 7], "generation.eos"),
        ("generation.pad", 5, "generation.pad"),
        ("max_length", 4096, "max_length"),
    ],
)
def test_how_a_decoder_answers(decoder: Made, tmp_path: Path, keys: str, value: Any, name: str) -> None:
    wrong = decoder.wrong(damaged(decoder.bundle, tmp_path / "b", put("eptx.json", keys, value)))
    assert f"eptx.json: {name}" in wrong
    # GenAI's own file says the same of padding, and disagrees with the changed one
    assert set(wrong) - {f"eptx.json: {name}"} <= {"genai_config.json: model.pad_token_id"}


def test_the_order_of_eos_does_not_matter(decoder: Made, tmp_path: Path) -> None:
    change = put("eptx.json", "generation.eos", [5, 2, 2])
    assert decoder.wrong(damaged(decoder.bundle, tmp_path / "b", change)) == {}


_TRAINED = (ExpectedTask("a", 2, ("no", "yes")), ExpectedTask("b", 3, None), ExpectedTask("c", None, None))
_OFF = [ExpectedTask("base", 0, None)]
_SAID = (Task("a", 0, 2, ("no", "yes")), Task("b", 1, 3), Task("c", 2), Task("base", 3, 0))


@pytest.mark.parametrize(
    ("tasks", "name", "said"),
    [
        (_SAID, "", ""),
        ((_SAID[0], replace(_SAID[1], label_names=("LABEL_0", "LABEL_1", "LABEL_2")), *_SAID[2:]), "", ""),
        (_SAID[:2] + _SAID[3:], "tasks", "lacks the task 'c'"),
        (_SAID[:3], "tasks", "lacks the task 'base'"),
        ((*_SAID, Task("d", 4)), "tasks", "names a task 'd' that was not trained"),
        ((replace(_SAID[0], id=1), replace(_SAID[1], id=0), *_SAID[2:]), "tasks", "has id 1; it was trained as 0"),
        ((_SAID[1], _SAID[0], *_SAID[2:]), "tasks", "has the order b, a, c, base"),
        ((replace(_SAID[0], name="A"), *_SAID[1:]), "tasks", "lacks the task 'a'"),
        ((replace(_SAID[0], labels=3, label_names=None), *_SAID[1:]), "task a: labels", "says 3 labels; the trained"),
        (
            (*_SAID[:2], replace(_SAID[2], labels=1), _SAID[3]),
            "task c: labels",
            "says 1 labels; the trained",
        ),
        ((*_SAID[:3], replace(_SAID[3], labels=2)), "task base: labels", "says 2 labels"),
        ((replace(_SAID[0], label_names=("yes", "no")), *_SAID[1:]), "task a: label_names", "names 'yes', 'no'; the"),
        ((replace(_SAID[0], label_names=None), *_SAID[1:]), "task a: label_names", "names none; the trained"),
        ((_SAID[0], replace(_SAID[1], label_names=("x", "y", "z")), *_SAID[2:]), "task b: label_names", "nothing that"),
    ],
)
def test_tasks(encoder: Made, tasks: tuple[Task, ...], name: str, said: str) -> None:
    found = compare_tasks(replace(encoder.bundle.manifest, tasks=tasks), _TRAINED, _OFF)
    wrong = {check.name.removeprefix("eptx.json: "): check.wrong for check in found if check.wrong}
    assert (name in wrong and said in str(wrong[name])) if name else not wrong


def test_a_static_bundle_has_its_one_task(encoder: Made) -> None:
    inputs = tuple(spec for spec in encoder.bundle.manifest.inputs if spec.name != "task_id")
    manifest = replace(encoder.bundle.manifest, mode="static", inputs=inputs, tasks=(Task("b", 0, 3),))
    assert [check.wrong for check in compare_tasks(manifest, _TRAINED[1:2], _OFF)] == [None] * 3
    assert compare_tasks(manifest, _TRAINED[:1], _OFF)[0].wrong == "lacks the task 'a'"


@pytest.mark.parametrize(
    ("kind", "own", "positions"),
    [
        ("Bert", {}, 34),
        ("Roberta", {}, 32),
        ("XLMRoberta", {"pad_token_id": 4}, 29),
        ("Camembert", {}, 32),
        ("MPNet", {}, 32),
        ("Esm", {"pad_token_id": 1, "mask_token_id": 3}, 32),
        ("Esm", {"pad_token_id": 1, "mask_token_id": 3, "position_embedding_type": "rotary"}, None),
        ("Longformer", {"attention_window": 4}, 32),
        ("DistilBert", {"dim": 32, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}, 34),
        ("OPT", {"word_embed_proj_dim": 32, "ffn_dim": 32}, 34),
        ("DebertaV2", _RELATIVE, None),
        ("MobileBert", _TINY, 34),
        ("Llama", {}, None),
        ("Mixtral", {"num_key_value_heads": 2, "num_local_experts": 1, "num_experts_per_tok": 1}, None),
    ],
)
def test_positions_of_many_models(kind: str, own: dict[str, Any], positions: int | None) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**(_SIZES | own))
    found = lookups(transformers.AutoModel.from_config(config))
    assert (found.words, found.positions) == (60, positions)


def test_images_have_no_words() -> None:
    config = transformers.ViTConfig(**(_SIZES | {"image_size": 32, "patch_size": 16}))
    assert lookups(transformers.ViTModel(config)) == Lookups()
