"""What logits mean is what transformers takes them for: its pipelines give the same labels and scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from sklearn import metrics as sk

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import DataError, UsageError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.run import validate_bundle
from eptx.runtime import Session
from eptx.runtime.measure import Probe, Source, choose_metrics, drops, read_data
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_lora
from tests.exporter.validation.conftest import Cli
from tests.exporter.validation.contents.files.made import write_wordpieces
from tests.runtime.serving.servers import serving

REGRESSION, SINGLE, MULTI = "regression", "single_label_classification", "multi_label_classification"
TEXTS = ["the word is one", "two three four five", "first", "true and second word is the first", "five"]


def _base(folder: Path, labels: int, problem: str | None, kind: str = "Sequence") -> Path:
    torch.manual_seed(11)
    config = tf.BertConfig(
        vocab_size=200,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=64,
        num_labels=labels,
        problem_type=problem,
    )
    model = getattr(tf, f"BertFor{kind}Classification")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    with quiet():
        model.save_pretrained(folder)
    write_wordpieces(folder, 200)
    return folder


def _export(folder: Path, base: Path, **options: Any) -> Bundle:
    """A bundle with the adapter and without, which is then the pipeline's model."""
    adapter = write_lora(folder / "lora", linear_shapes(base, ("query", "value")), seed=2)
    return export_bundle(base, [adapter], folder / "bundle", ExportOptions(mode="conditioned", **options))


@pytest.mark.parametrize(
    ("labels", "problem", "found"),
    [
        (4, MULTI, MULTI),
        (1, MULTI, MULTI),
        (4, SINGLE, SINGLE),
        (4, None, SINGLE),
        (1, REGRESSION, REGRESSION),
        (3, REGRESSION, REGRESSION),
        (1, None, REGRESSION),
    ],
)
def test_as_transformers_pipeline(tmp_path: Path, labels: int, problem: str | None, found: str) -> None:
    base = _base(tmp_path / "base", labels, problem)
    bundle = _export(tmp_path, base)
    assert {task.problem_type for task in bundle.manifest.tasks} == {found}
    answers = Session(bundle).run(TEXTS, "base")
    with quiet():
        pipe = tf.pipeline("text-classification", str(base), top_k=None)
        applied = "none" if found == REGRESSION else None  # of one label a pipeline takes the sigmoid, and the loss MSE
        wanted = pipe(TEXTS, function_to_apply=applied)
    for i, row in enumerate(wanted):
        by_label = [score for _, score in sorted((item["label"], item["score"]) for item in row)]
        if found == REGRESSION:
            values = np.ravel(answers.labels[i])
            assert answers.scores[i] is None and answers.probabilities[i] is None
        else:
            values = answers.probabilities[i]
        np.testing.assert_allclose(values, by_label, atol=2e-6)
        if found == MULTI:
            assert answers.labels[i] == tuple(n for n, score in enumerate(by_label) if score > 0.5)
            np.testing.assert_allclose(answers.scores[i], by_label, atol=2e-6)
        elif found == SINGLE:
            assert answers.labels[i] == int(np.argmax(by_label))
            assert answers.scores[i] == pytest.approx(max(by_label), abs=2e-6)


def test_each_token_has_an_answer(tmp_path: Path) -> None:
    base = _base(tmp_path / "base", 3, None, "Token")
    answers = Session(_export(tmp_path, base)).run(TEXTS[:1], "base")
    with quiet():
        wanted = tf.pipeline("token-classification", str(base), ignore_labels=[])(TEXTS[0])
    assert [f"LABEL_{label}" for label in answers.labels[0][1:-1]] == [item["entity"] for item in wanted]
    np.testing.assert_allclose(answers.scores[0][1:-1], [item["score"] for item in wanted], atol=2e-6)


def test_a_validation_finds_another_problem_type(tmp_path: Path) -> None:
    base = _base(tmp_path / "base", 4, MULTI)
    bundle = _export(tmp_path, base)
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    assert report.passed
    manifest = json.loads((bundle.path / "eptx.json").read_text())
    manifest["tasks"][0]["problem_type"] = SINGLE
    (bundle.path / "eptx.json").write_text(json.dumps(manifest))
    wrong = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    assert not wrong.passed
    (check,) = [check for check in wrong.checks if check.wrong]
    assert (check.name, check.wrong) == (
        "eptx.json: task task0: problem_type",
        f"says {SINGLE}; the trained model has {MULTI}",
    )


def test_tasks_may_differ(tmp_path: Path, cli: Cli) -> None:
    """Where no file says it, the export is told, for each task by itself."""
    base = _base(tmp_path / "base", 2, None)
    adapter = write_ept(tmp_path / "ept", linear_shapes(base, ("query",)), seed=3, tasks=3)
    add_heads(adapter, {"topics": 4, "score": 1, "mood": 3}, 24)
    arguments = ["--mode", "conditioned", "--top-k", "2", "-q", "-o", tmp_path / "bundle"]
    code, _, err = cli("export", base, adapter, *arguments, "--problem-type", f"topics={MULTI}")
    assert (code, err) == (0, "")
    session = Session(tmp_path / "bundle")
    found = {task.name: task.problem_type for task in session.manifest.tasks}
    assert found == {"topics": MULTI, "score": REGRESSION, "mood": SINGLE}
    answers = session.run(TEXTS[:3], ["topics", "score", "mood"])
    topics, score, mood = answers.labels
    logits = answers.logits
    assert topics == tuple(i for i, value in enumerate(1 / (1 + np.exp(-logits[0]))) if value > 0.5)
    assert (score, mood) == (float(logits[1][0]), int(logits[2].argmax()))
    report = validate_bundle(tmp_path / "bundle", ValidateOptions(providers=["cpu"]))
    assert report.passed
    assert [check.name for check in report.checks if check.how == "unchecked"] == [
        "eptx.json: task topics: problem_type"
    ]
    code, _, err = cli("export", base, adapter, *arguments, "--problem-type", "topics=many")
    assert (code, err.startswith("error: --problem-type 'many': choose from regression, ")) == (2, True)
    with pytest.raises(UsageError, match="--problem-type names an unknown task 'x'; there are"):
        export_bundle(
            base, [adapter], tmp_path / "b", ExportOptions(mode="dynamic", top_k=2, problem_types={"x": MULTI})
        )


def test_the_servers_answers(tmp_path: Path, cli: Cli) -> None:
    bundle = _export(tmp_path, _base(tmp_path / "base", 4, MULTI))
    answers = Session(bundle).run(TEXTS, "task0")
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}]
    body = {"inputs": inputs, "parameters": {"task": "task0"}}
    with serving(tmp_path, bundle.path) as server:
        marked = b"\xef\xbb\xbf" + json.dumps(body).encode()  # a byte order mark is passed over
        status, _, raw = server.call("POST", "/v2/models/bundle/infer", marked)
        assert status == 200, raw
        outputs = {output["name"]: output for output in json.loads(raw)["outputs"]}
    assert [tuple(json.loads(text)) for text in outputs["label"]["data"]] == answers.labels
    assert outputs["score"]["data"] == [None] * len(TEXTS)
    assert outputs["scores"]["shape"] == [len(TEXTS), 4]
    np.testing.assert_allclose(outputs["scores"]["data"], np.ravel(answers.scores), atol=1e-6)
    code, out, _ = cli("run", bundle.path, *TEXTS, "--task", "task0", "--json")
    assert code == 0
    assert [tuple(row["label"]) for row in json.loads(out)] == answers.labels
    np.testing.assert_allclose([row["score"] for row in json.loads(out)], answers.scores, atol=1e-6)


def test_what_several_labels_are_measured_by(tmp_path: Path) -> None:
    bundle = _export(tmp_path, _base(tmp_path / "base", 4, MULTI))
    session = Session(bundle)
    right = [[0, 2], [], [1], [0, 1, 2, 3], [3]]
    file = tmp_path / "rows.jsonl"
    rows = [{"text": text, "task": "task0", "label": label} for text, label in zip(TEXTS, right, strict=True)]
    rows[1]["label"] = [0.0, 0.0, 0.0, 0.0]  # as transformers' own loss wants them
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8-sig")
    probe = Probe(session, read_data([Source(file)], ["task0"]))
    answers = probe.run(session)
    found = np.array([[n in labels for n in range(4)] for labels in session.run(TEXTS, "task0").labels])
    wanted = np.array([[n in labels for n in range(4)] for labels in right])
    for name, average in (("f1_micro", "micro"), ("f1_macro", "macro")):
        (drop,) = drops(answers, answers, choose_metrics(probe.kinds, {"task0": name}), intervals=False)
        assert drop.labelled
        assert drop.found == pytest.approx(sk.f1_score(wanted, found, average=average, zero_division=1))
    assert choose_metrics(probe.kinds, {}) == {"task0": "f1_micro"}
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"], data=file))
    (task,) = [task for task in report.providers[0].tasks if task.task == "task0"]
    assert task.metric is not None and task.metric.name == "f1_micro"
    assert task.metric.bundle == pytest.approx(sk.f1_score(wanted, found, average="micro", zero_division=1))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ([0, 1, 1, 0], "appears twice; name each once, or give a decimal"),
        ([4], "4 is no label of task0; it has 0 to 3"),
        (["x"], "'x' is no label of task0"),
        ([0.0, 1.0], "0.0 is no label of task0"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, label: Any, said: str) -> None:
    session = Session(_export(tmp_path, _base(tmp_path / "base", 4, MULTI)))
    rows = read_data([Source([{"text": "the", "task": "task0", "label": label}])], ["task0"])
    with pytest.raises(DataError, match=said):
        Probe(session, rows)
