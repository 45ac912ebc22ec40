"""Modules that PEFT saves whole: what a bundle gives is what PEFT's own model gave before it was saved.

Every class is a tiny random one of transformers; the base folder is bare, or has a head of its own; validation passes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from eptx import Session
from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import AdapterError, BaseModelError, NotSupportedError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from eptx.exporter.validation import ValidateOptions, validate_bundle

Arrays = dict[str, np.ndarray]
_TEXT: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 18,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
_VISION: dict[str, Any] = {
    **{key: _TEXT[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")},
    "image_size": 16,
    "patch_size": 4,
}


@dataclass(frozen=True)
class Kind:
    """A class that is trained.

    Attributes:
        config: the class of its configuration, and settings.
        bare: the class that the base was saved as.
        trained: the class that the adapter is trained on.
        targets: the adapted modules.
        settings: of PEFT.
        labels: what the classifiers of the tasks have.
        shape: of a row's logits, without the labels; "length" for the tokens.
    """

    config: tuple[str, Mapping[str, Any]]
    bare: str
    trained: str
    targets: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=lambda: {"task_type": "SEQ_CLS"})
    labels: tuple[int, ...] = (3, 5)


_QV, _PROJ, _SAVED = ("query", "value"), ("q_proj", "v_proj"), {"modules_to_save": ["classifier"]}
_DEBERTA = {
    **_TEXT,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_DISTIL = {"vocab_size": 60, "dim": 12, "n_layers": 2, "n_heads": 2, "hidden_dim": 18, "max_position_embeddings": 40}
_SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
_CONVNEXT = {"image_size": 32, "hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}
KINDS = {
    "BERT": Kind(("BertConfig", _TEXT), "BertModel", "BertForSequenceClassification", _QV),
    "BERT of a masked language model, with its pooler": Kind(
        ("BertConfig", _TEXT),
        "BertForMaskedLM",
        "BertForSequenceClassification",
        _QV,
        {"task_type": "SEQ_CLS", "modules_to_save": ["pooler", "classifier"]},
    ),
    "RoBERTa": Kind(("RobertaConfig", _TEXT), "RobertaModel", "RobertaForSequenceClassification", _QV),
    "XLM-R": Kind(("XLMRobertaConfig", _TEXT), "XLMRobertaForMaskedLM", "XLMRobertaForSequenceClassification", _QV),
    "ELECTRA": Kind(("ElectraConfig", _TEXT), "ElectraModel", "ElectraForSequenceClassification", _QV),
    "DeBERTa": Kind(
        ("DebertaV2Config", _DEBERTA),
        "DebertaV2Model",
        "DebertaV2ForSequenceClassification",
        ("query_proj", "value_proj"),
        {"task_type": "SEQ_CLS", "modules_to_save": ["pooler", "classifier"]},
    ),
    "DistilBERT": Kind(
        ("DistilBertConfig", _DISTIL),
        "DistilBertModel",
        "DistilBertForSequenceClassification",
        ("q_lin", "v_lin"),
        {"task_type": "SEQ_CLS", "modules_to_save": ["pre_classifier", "classifier"]},
    ),
    "tokens": Kind(("BertConfig", _TEXT), "BertModel", "BertForTokenClassification", _QV, {"task_type": "TOKEN_CLS"}),
    "tokens, RoBERTa": Kind(
        ("RobertaConfig", _TEXT), "RobertaModel", "RobertaForTokenClassification", _QV, {"task_type": "TOKEN_CLS"}
    ),
    "answers in the text": Kind(
        ("BertConfig", _TEXT),
        "BertModel",
        "BertForQuestionAnswering",
        _QV,
        {"task_type": "QUESTION_ANS", "modules_to_save": ["qa_outputs"]},
        (2, 2),
    ),
    "ViT": Kind(("ViTConfig", _VISION), "ViTModel", "ViTForImageClassification", _PROJ, _SAVED),
    "DeiT": Kind(("DeiTConfig", _VISION), "DeiTModel", "DeiTForImageClassification", _PROJ, _SAVED),
    "Swin": Kind(("SwinConfig", _SWIN), "SwinModel", "SwinForImageClassification", _PROJ, _SAVED),
    "ConvNeXt": Kind(
        ("ConvNextConfig", _CONVNEXT), "ConvNextModel", "ConvNextForImageClassification", ("pwconv1",), _SAVED
    ),
    "DINOv2": Kind(("Dinov2Config", _VISION), "Dinov2Model", "Dinov2ForImageClassification", _PROJ, _SAVED),
}


@dataclass(frozen=True)
class Made:
    """A base, adapters on it, and what PEFT computes with each; None stands for no adapter."""

    base: Path
    adapters: list[Path]
    inputs: Arrays
    outputs: list[Arrays]

    def export(self, out: Path, mode: Any, **options: Any) -> Bundle:
        names = [folder.name for folder in self.adapters]
        return export_bundle(self.base, self.adapters, out, ExportOptions(mode=mode, tasks=names, **options))


def write_base(kind: Kind, folder: Path, saved_as: str, **more: Any) -> Path:
    torch.manual_seed(1)
    name, settings = kind.config
    model = getattr(transformers, saved_as)(getattr(transformers, name)(**{**settings, **more}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    with quiet():
        model.save_pretrained(folder)
    return folder


def train(kind: Kind, base: Path, folder: Path, labels: int, seed: int) -> tuple[Path, Any]:
    """PEFT's own model with a random adapter and random saved modules, saved."""
    torch.manual_seed(seed)
    with quiet():
        model_class = getattr(transformers, kind.trained)
        loaded = model_class.from_pretrained(base, num_labels=labels, ignore_mismatched_sizes=True)
        config = LoraConfig(r=2 + seed, target_modules=list(kind.targets), init_lora_weights=False, **kind.settings)
        model: Any = get_peft_model(loaded, config)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.data.normal_(0, 0.4)
        model.save_pretrained(folder)
    return folder, model.eval()


def make(kind: Kind, place: Path, saved_as: str | None = None, **more: Any) -> Made:
    base = write_base(kind, place / "base", saved_as or kind.bare, **more)
    inputs, folders, outputs = inputs_of(kind), [], []
    for seed, labels in enumerate(kind.labels):
        folder, model = train(kind, base, place / f"task{'ab'[seed]}", labels, seed)
        folders.append(folder)
        outputs.append(computed(model, inputs))
    return Made(base, folders, inputs, outputs)


def inputs_of(kind: Kind) -> Arrays:
    rng, settings = np.random.default_rng(5), kind.config[1]
    if "image_size" in settings:
        size = settings["image_size"]
        return {"pixel_values": rng.normal(size=(4, 3, size, size)).astype(np.float32)}
    mask = (np.arange(9) < np.array([9, 4, 7, 9])[:, None]).astype(np.int64)
    return {"input_ids": rng.integers(3, 60, (4, 9)) * mask, "attention_mask": mask}


def computed(model: Any, inputs: Arrays) -> Arrays:
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        result = model.double()(**{n: t.double() if t.is_floating_point() else t for n, t in tensors.items()})
    return {name: value.numpy() for name, value in result.items() if isinstance(value, torch.Tensor)}


def run(bundle: Bundle, inputs: Arrays, task: Sequence[int]) -> Arrays:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(bundle.model), options, providers=["CPUExecutionProvider"])
    known = {"task_id": np.array(task), **inputs}
    if "input_ids" in inputs:
        known["token_type_ids"] = np.zeros_like(inputs["input_ids"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {i.name: known[i.name] for i in session.get_inputs()}), strict=True))


def close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 2e-5 * max(1.0, np.abs(want).max())


def validated(bundle: Bundle) -> None:
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    assert report.passed, report.reason


@pytest.mark.parametrize("name", KINDS)
def test_each_row_reads_its_own_tasks(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    made = make(kind, tmp_path)
    bundle = made.export(tmp_path / "b", "conditioned")
    tasks = [0, 1, 1, 0]
    got = run(bundle, made.inputs, tasks)
    assert set(got) == set(made.outputs[0])
    for output, array in got.items():
        for row, task in enumerate(tasks):
            want = made.outputs[task][output][row]
            close(array[row][..., : want.shape[-1]], want)
            assert not array[row][..., want.shape[-1] :].any()
    labels = list(kind.labels) if "logits" in got else [None, None]
    assert [task.labels for task in bundle.manifest.tasks] == labels
    assert [task.name for task in bundle.manifest.tasks] == ["taska", "taskb"]  # the base alone has no head
    validated(bundle)


@pytest.mark.parametrize("name", KINDS)
def test_one_task_alone(tmp_path: Path, name: str) -> None:
    made = make(KINDS[name], tmp_path)
    bundle = made.export(tmp_path / "b", "static", task="taskb")
    got = run(bundle, made.inputs, [])
    assert set(got) == set(made.outputs[1])
    for output, array in got.items():
        close(array, made.outputs[1][output])
    assert {node.domain for node in _nodes(bundle)} <= {"", "com.microsoft"}
    validated(bundle)


def _nodes(bundle: Bundle) -> Any:
    import onnx_ir as ir

    return ir.load(bundle.model.absolute()).graph


@pytest.mark.parametrize("own", [3, 4, 5])
def test_the_base_has_a_head_of_its_own(tmp_path: Path, own: int) -> None:
    """As many labels as one of the tasks, or as none: rows of `base` read it, and its labels have its names."""
    kind = KINDS["RoBERTa"]
    names = {i: f"name {i}" for i in range(own)}
    made = make(kind, tmp_path, kind.trained, id2label=names, label2id={v: k for k, v in names.items()})
    bundle = made.export(tmp_path / "b", "conditioned")
    with quiet():
        base = transformers.RobertaForSequenceClassification.from_pretrained(made.base).eval()
    wanted = [*(each["logits"] for each in made.outputs), computed(base, made.inputs)["logits"]]
    got = run(bundle, made.inputs, [2, 1, 0, 2])["logits"]
    for row, task in enumerate([2, 1, 0, 2]):
        close(got[row, : wanted[task].shape[-1]], wanted[task][row])
    known = tuple(names.values())
    said = {task.name: (task.labels, task.label_names) for task in bundle.manifest.tasks}
    assert said == {
        "taska": (3, known if own == 3 else None),
        "taskb": (5, known if own == 5 else None),
        "base": (own, known),
    }
    validated(bundle)


def test_tokens_through_a_session(tmp_path: Path) -> None:
    made = make(KINDS["tokens"], tmp_path)
    outputs = Session(made.export(tmp_path / "b", "conditioned").path).run(made.inputs, task=["taska", "taskb"] * 2)
    assert [logits.shape for logits in outputs.logits] == [(9, 3), (9, 5)] * 2
    for row, logits in enumerate(outputs.logits):
        close(logits, made.outputs[row % 2]["logits"][row])
        scores = np.exp(made.outputs[row % 2]["logits"][row])
        scores = scores / scores.sum(-1, keepdims=True)
        assert outputs.labels[row] == scores.argmax(-1).tolist()
        np.testing.assert_allclose(outputs.scores[row], scores.max(-1), rtol=1e-4)


@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_an_onnx_base_with_the_head(tmp_path: Path, mode: str) -> None:
    """Found in the graph by name; a head of other labels, or none, is refused with what to do."""
    import onnx_ir as ir

    from eptx.exporter.bases import load_transformers

    kind = KINDS["RoBERTa"]
    made = make(kind, tmp_path, kind.trained, num_labels=3)
    onnx, bare = tmp_path / "base.onnx", tmp_path / "bare.onnx"
    ir.save(load_transformers(made.base).model, onnx)
    ir.save(load_transformers(made.base, headless=True).model, bare)
    one = Made(made.base, made.adapters[:1], made.inputs, made.outputs)
    bundle = one.export(tmp_path / "b", mode, base_onnx=onnx)
    close(run(bundle, made.inputs, [0] * 4)["logits"], made.outputs[0]["logits"])
    validated(bundle)
    other = Made(made.base, made.adapters[1:], made.inputs, made.outputs)
    with pytest.raises(AdapterError, match=r"is \[5(, 12)?\] in the adapter, .* without --base-onnx"):
        other.export(tmp_path / "c", mode, base_onnx=onnx)
    with pytest.raises(NotSupportedError, match=r"has no classifier\..* without --base-onnx"):
        one.export(tmp_path / "c", mode, base_onnx=bare)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_other_modules_than_heads(tmp_path: Path, mode: str) -> None:
    """Embeddings and norms that are trained whole, on a base that has them."""
    kind = Kind(
        ("BertConfig", _TEXT),
        "BertModel",
        "BertModel",
        _QV,
        {"modules_to_save": ["word_embeddings", "output.LayerNorm", "pooler"]},
    )
    made = make(kind, tmp_path)
    options = {"task": "taskb"} if mode == "static" else {}
    bundle = made.export(tmp_path / "b", mode, **options)
    got = run(bundle, made.inputs, [1, 0, 1, 0])
    for output, array in got.items():
        for row in range(4):
            close(array[row], made.outputs[1 if mode == "static" else (row + 1) % 2][output][row])
    validated(bundle)


def test_one_task_saves_what_another_adapts(tmp_path: Path) -> None:
    """The task `base` reads the base's weight and bias."""
    kind = replace(KINDS["BERT"], targets=("query",), settings={"modules_to_save": ["classifier"]})
    adapted = replace(kind, targets=("query", "classifier"))
    base = write_base(kind, tmp_path / "base", kind.trained, num_labels=3)
    inputs = inputs_of(kind)
    trained = [train(each, base, tmp_path / f"task{i}", 3, i) for i, each in enumerate((kind, adapted))]
    with quiet():
        plain = transformers.BertForSequenceClassification.from_pretrained(base).eval()
    bundle = Made(base, [folder for folder, _ in trained], inputs, []).export(tmp_path / "b", "conditioned")
    got = run(bundle, inputs, [0, 1, 2, 0])["logits"]
    wanted = [computed(model, inputs)["logits"] for model in (*(model for _, model in trained), plain)]
    for row, task in enumerate([0, 1, 2, 0]):
        close(got[row], wanted[task][row])
    validated(bundle)


def test_one_task_without_a_head(tmp_path: Path) -> None:
    """It has the base's; without one there is nothing that its rows could read."""
    kind = KINDS["BERT"]
    made = make(kind, tmp_path / "own", kind.trained, num_labels=3)
    _drop_head(made.adapters[1])
    bundle = made.export(tmp_path / "b", "conditioned")
    assert [task.labels for task in bundle.manifest.tasks] == [3, 3, 3]
    validated(bundle)
    bare = make(kind, tmp_path / "bare")
    _drop_head(bare.adapters[1])
    with pytest.raises(BaseModelError, match="task 'taskb' brings no classifier") as caught:
        bare.export(tmp_path / "c", "conditioned")
    assert "\n" not in str(caught.value)


def _drop_head(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = folder / "adapter_model.safetensors"
    save_file({name: array for name, array in load_file(path).items() if "classifier" not in name}, path)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"modules_to_save": None}))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    kind = KINDS["BERT"]
    made = make(kind, tmp_path)
    path = made.adapters[0] / "adapter_model.safetensors"
    from safetensors.numpy import load_file, save_file

    own = load_file(path)
    wide = {**own, "base_model.model.classifier.weight": np.ones((3, 5), np.float32)}
    other = {**own, "base_model.model.scores.weight": np.ones((3, 12), np.float32)}
    uneven = {**own, "base_model.model.classifier.bias": np.ones(4, np.float32)}
    for tensors, named in (
        (wide, r"classifier\.weight is \[3, 5\] in the adapter"),
        (other, r"scores\.weight, which a BertForSequenceClassification .* has not"),
        (uneven, r"are of \[3, 4\] labels"),
    ):
        save_file(tensors, path)
        with pytest.raises(AdapterError, match=named) as caught:
            made.export(tmp_path / "b", "conditioned")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "b").exists()


def test_tasks_of_different_classes(tmp_path: Path) -> None:
    first, second = KINDS["BERT"], KINDS["tokens"]
    base = write_base(first, tmp_path / "base", first.bare)
    folders = [train(kind, base, tmp_path / kind.trained, 3, 0)[0] for kind in (first, second)]
    with pytest.raises(NotSupportedError, match="BertForSequenceClassification, BertForTokenClassification"):
        export_bundle(base, folders, tmp_path / "b", ExportOptions(mode="conditioned"))
