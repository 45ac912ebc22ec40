"""Which class a base is exported as, and what its labels are called, where neither goes without saying.

The expected outputs are those of PEFT's own model before it was saved; the names are transformers' own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from eptx import Session
from eptx.calibration import export_bundle
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.exporter.trained.models import peft_model, save, write_base

IDS = np.array([[3, 4, 5, 6], [7, 8, 9, 2]], np.int64)
NAMES = {0: "neg", 1: "neu", 2: "pos"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``mlm``: a base saved as a masked language model; ``head``: one with a classifier whose labels have names."""
    root = tmp_path_factory.mktemp("classes")
    write_base("bert", "BertForMaskedLM", root / "mlm")
    write_base(
        "bert", "BertForSequenceClassification", root / "head", id2label=NAMES, label2id={"neg": 0, "neu": 1, "pos": 2}
    )
    return root


def _adapter(base: Path, trained: str, folder: Path, **config: Any) -> tuple[Any, Path]:
    """An adapter without a word of its class."""
    model = peft_model(base, trained, target_modules=["query"], **config)
    save(model, folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "auto_mapping": None, "task_type": None}))
    return model, folder


def _outputs(model: Any, bundle: Path, task: str) -> tuple[Any, Any]:
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor(IDS)).to_tuple()[0].numpy()
    given = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), "token_type_ids": np.zeros_like(IDS)}
    found = Session(bundle).run(given, task)
    np.testing.assert_allclose(found[next(iter(found))], wanted, atol=2e-5 * max(1, np.abs(wanted).max()))
    return found, wanted


def test_tensors_that_fit_several_classes(root: Path, tmp_path: Path) -> None:
    model, adapter = _adapter(
        root / "mlm", "BertForTokenClassification", tmp_path / "ner", labels=3, modules_to_save=["classifier"]
    )
    with pytest.raises(EptxError) as refused:
        export_bundle(root / "mlm", [adapter], tmp_path / "b", ExportOptions(mode="static"))
    assert refused.value.exit_code == 2
    assert str(refused.value).endswith(
        "several classes: give --model-class NAME, one of BertForSequenceClassification, BertForTokenClassification"
    )
    told = ExportOptions(mode="static", model_class="AutoModelForTokenClassification", labels={None: ["O", "B", "I"]})
    bundle = export_bundle(root / "mlm", [adapter], tmp_path / "b", told)
    found, wanted = _outputs(model, tmp_path / "b", "task0")
    assert found.labels == [["OBI"[label] for label in row] for row in wanted.argmax(-1)]
    assert bundle.manifest.sources.model_class == "AutoModelForTokenClassification"
    unchecked = {check.name for check in validate_bundle(tmp_path / "b").checks if check.how == "unchecked"}
    assert {"eptx.json: sources.model_class", "eptx.json: task task0: label_names"} <= unchecked
    again = validate_bundle(
        tmp_path / "b", ValidateOptions(model_class="BertForTokenClassification", labels={None: ["O", "I", "B"]})
    )
    wrong = {check.name: check.wrong for check in again.checks if check.wrong}
    assert wrong == {"eptx.json: task task0: label_names": "names 'O', 'B', 'I'; the trained model names 'O', 'I', 'B'"}
    short = ExportOptions(mode="static", model_class="AutoModelForTokenClassification", labels={None: ["O", "B"]})
    with pytest.raises(EptxError, match="--labels names 2 labels of task 'task0'; it has 3"):
        export_bundle(root / "mlm", [adapter], tmp_path / "c", short)


def test_the_bare_model_of_a_base_with_a_head(root: Path, tmp_path: Path) -> None:
    model, adapter = _adapter(root / "mlm", "BertModel", tmp_path / "features")
    for name in ("AutoModel", "BertModel"):
        options = ExportOptions(mode="conditioned", model_class=name)
        export_bundle(root / "mlm", [adapter], tmp_path / "b", options)
        _outputs(model, tmp_path / "b", "task0")
    report = validate_bundle(tmp_path / "b", ValidateOptions(model_class="AutoModel"))
    assert report.passed
    wrong = validate_bundle(tmp_path / "b", ValidateOptions(model_class="BertForMaskedLM"))
    assert not wrong.passed
    assert "says BertModel; --model-class says BertForMaskedLM" in [check.wrong for check in wrong.checks]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("Bert", 5, "transformers has no model 'Bert': give --model-class NAME"),
        ("AutoModelForImageClassification", 5, "transformers has no AutoModelForImageClassification for 'bert'"),
        ("RobertaModel", 5, "the adapter was trained on a RobertaModel; the base is a 'bert'"),
    ],
)
def test_other_names(root: Path, tmp_path: Path, name: str, code: int, said: str) -> None:
    _, adapter = _adapter(root / "mlm", "BertModel", tmp_path / "features")
    with pytest.raises(EptxError) as refused:
        export_bundle(root / "mlm", [adapter], tmp_path / "b", ExportOptions(mode="static", model_class=name))
    assert refused.value.exit_code == code
    assert said in str(refused.value)


def test_labels_of_the_files(root: Path, tmp_path: Path) -> None:
    """Those of the base, and of a config.json that a trainer saved beside the adapter."""
    config = AutoConfig.from_pretrained(root / "head")
    model = peft_model(root / "head", "BertForSequenceClassification", target_modules=["query"], task_type="SEQ_CLS")
    adapter = save(model, tmp_path / "adapter")
    for own in (config.id2label, {0: "A", 1: "B", 2: "C"}):
        found = export_bundle(root / "head", [adapter], tmp_path / "b", ExportOptions(mode="conditioned")).manifest
        assert {task.name: task.label_names for task in found.tasks} == {
            "task0": tuple(own.values()),
            "base": tuple(config.id2label.values()),
        }
        outputs, wanted = _outputs(model, tmp_path / "b", "task0")
        assert outputs.labels == [own[label] for label in wanted.argmax(-1)]
        assert validate_bundle(tmp_path / "b").passed
        config.id2label = {0: "A", 1: "B", 2: "C"}
        config.save_pretrained(adapter)
        config = AutoConfig.from_pretrained(root / "head")
