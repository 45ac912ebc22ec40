"""Files that do not fit: a tensor too many, too few, of another shape, is one line that names it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eptx.errors import AdapterError, BaseModelError, EptxError, NotSupportedError, UsageError
from eptx.exporter.trained import Trained
from tests.exporter.trained.models import peft_model, save, write_base
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_tucka
from tests.support.trained import trained_model

Tensors = dict[str, np.ndarray]
P = "base_model.model."
Q = f"{P}encoder.layer.0.attention.self.query"
V = f"{P}encoder.layer.1.attention.self.value"
CLASSIFIER = f"{P}classifier"
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Kind -> its adapter's folder; `base` and `headed` are the bases'."""
    home = tmp_path_factory.mktemp("strict")
    write_base("bert", "BertModel", home / "base")
    write_base("bert", "BertForSequenceClassification", home / "headed")
    shapes = linear_shapes(home / "base", ("query", "value"))
    write_ept(home / "ept", shapes, seed=1, tasks=2, sizes=(2, 3), rank=2)
    write_tucka(home / "tucka", shapes, seed=2, rank=3)
    save(peft_model(home / "base", "BertModel", target_modules=["query", "value"]), home / "lora")
    settings = {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}
    save(peft_model(home / "headed", "BertForSequenceClassification", **settings), home / "classifier")
    return lambda kind: home / kind


def load(made: Made, folder: Path, base: str = "base") -> Trained:
    kind = folder.name
    return trained_model(made(base), [folder], top_k=1 if kind == "ept" else None)


def copied(made: Made, kind: str, to: Path, change: Callable[[Tensors], object]) -> Path:
    folder = to / kind
    folder.mkdir()
    tensors = load_file(made(kind) / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_bytes((made(kind) / "adapter_config.json").read_bytes())
    return folder


def _drop(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(name)


def _add(name: str, like: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: tensors[like].copy()})


def _cut(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: np.ascontiguousarray(tensors[name][:-1])})


#: what is wrong -> kind, change, what the message names
CASES: dict[str, tuple[str, Callable[[Tensors], object], str]] = {
    "lora: B is missing": ("lora", _drop(f"{V}.lora_B.weight"), r"layer\.1\.attention\.self\.value\.lora_B"),
    "lora: a module is missing": ("lora", lambda t: [t.pop(n) for n in list(t) if n.startswith(V)], r"self\.value"),
    "lora: of a layer that is not there": (
        "lora",
        _add(f"{P}encoder.layer.7.attention.self.query.lora_A.weight", f"{Q}.lora_A.weight"),
        r"encoder\.layer\.7",
    ),
    "lora: of a module that is not adapted": (
        "lora",
        _add(f"{P}encoder.layer.0.attention.self.key.lora_A.weight", f"{Q}.lora_A.weight"),
        r"self\.key",
    ),
    "lora: a magnitude without DoRA": ("lora", _add(f"{Q}.lora_magnitude_vector", f"{Q}.lora_A.weight"), "magnitude"),
    "lora: A of another rank": ("lora", _cut(f"{Q}.lora_A.weight"), r"query\.lora_A"),
    "lora: an unknown tensor": ("lora", _add(f"{Q}.lora_C.weight", f"{Q}.lora_A.weight"), r"lora_C"),
    "lora: a module that the class lacks": ("lora", _add(f"{P}score.weight", f"{Q}.lora_A.weight"), "score"),
    "classifier: its bias is missing": ("classifier", _drop(f"{CLASSIFIER}.bias"), r"classifier.*bias"),
    "classifier: of another width": (
        "classifier",
        lambda t: t.update({f"{CLASSIFIER}.weight": np.ones((2, 5), np.float32)}),
        r"classifier.*weight",
    ),
    "ept: a kernel is missing": ("ept", _drop(f"{Q}.lora_expert_kernels.0"), r"query|kernel"),
    "ept: a number of a kernel is left out": (
        "ept",
        _add(f"{Q}.lora_expert_kernels.3", f"{Q}.lora_expert_kernels.1"),
        r"query",
    ),
    "ept: no gate bias": ("ept", _drop(f"{Q}.lora_gate.0.bias"), r"query\.lora_gate"),
    "ept: no embedding": ("ept", _drop(f"{Q}.lora_task_embedding.weight"), r"query\.lora_task_embedding"),
    "ept: fewer tasks in one module": ("ept", _cut(f"{Q}.lora_task_embedding.weight"), r"query\.lora_task_embedding"),
    "ept: an unknown tensor": ("ept", _add(f"{Q}.lora_other.weight", f"{Q}.lora_A.weight"), r"lora_other"),
    "tucka: no core": ("tucka", _drop(f"{V}.tucka_g"), r"value\.tucka_g"),
    "tucka: no centroids": ("tucka", _drop(f"{Q}.tucka_ec"), r"tucka_ec"),
    "tucka: two routers": ("tucka", _add(f"{V}.tucka_ec", f"{Q}.tucka_ec"), r"2 modules have tucka_ec"),
    "tucka: a core of fewer groups": ("tucka", _cut(f"{V}.tucka_g"), r"value\.tucka_g"),
    "tucka: of a layer that is not there": (
        "tucka",
        _add(f"{P}encoder.layer.9.attention.self.query.tucka_u", f"{Q}.tucka_u"),
        r"encoder\.layer\.9",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_left_over_is_named(made: Made, tmp_path: Path, case: str) -> None:
    kind, change, named = CASES[case]
    base = "headed" if kind == "classifier" else "base"
    load(made, made(kind), base)
    with pytest.raises((AdapterError, BaseModelError), match=named) as caught:
        load(made, copied(made, kind, tmp_path, change), base)
    assert "\n" not in str(caught.value)
    assert not re.search(r"state_dict|task0|default", str(caught.value))


def test_a_head_that_nobody_trained_is_missing(made: Made, tmp_path: Path) -> None:
    """Of a class that the base was not saved as, and whose head the adapter does not bring."""
    folder = copied(made, "classifier", tmp_path, lambda t: [t.pop(n) for n in list(t) if "classifier" in n])
    load(made, folder, "headed")  # which has it
    with pytest.raises(BaseModelError, match=r"as a BertForSequenceClassification its weights lack .*classifier") as e:
        load(made, folder, "base")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"auto_mapping": {"base_model_class": "NoModel"}}, NotSupportedError, "'NoModel'"),
        ({"r": "x"}, AdapterError, "lora"),
        ({"peft_type": "IA3"}, AdapterError, "no parameter of the model takes .*lora_A"),
    ],
)
def test_settings(made: Made, tmp_path: Path, settings: dict[str, object], error: type[EptxError], named: str) -> None:
    folder = copied(made, "lora", tmp_path, lambda tensors: None)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(error, match=named) as caught:
        load(made, folder)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(made: Made, tmp_path: Path) -> None:
    folder = copied(made, "lora", tmp_path, lambda tensors: None)
    (folder / "adapter_model.safetensors").write_bytes(b"12345678{}")
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors: cannot be read"):
        load(made, folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors"):
        load(made, folder)


def test_folders_of_different_methods(made: Made) -> None:
    with pytest.raises(UsageError, match="different methods: ept, lora"):
        trained_model(made("base"), [made("lora"), made("ept")], top_k=1)
    with pytest.raises(UsageError, match="one adapter folder"):
        trained_model(made("base"), [made("ept"), made("ept")], top_k=1)


def test_a_head_of_an_unknown_task(made: Made, tmp_path: Path) -> None:
    folder = add_heads(copied(made, "ept", tmp_path, lambda tensors: None), {"x": 2, "y": 3}, 12)
    assert load(made, folder).tasks == ("x", "y")
    with pytest.raises(AdapterError, match="a head for 'y'"):
        trained_model(made("base"), [folder], top_k=1, tasks=["x", "z"])
