"""What the example for Node and browsers says of a label, of a number, and of several labels, or none, at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.examples.web import needs_node, node
from tests.support.classifiers import PAIRS, TASKS, Made, write_classifiers

pytestmark = needs_node

TEXTS = [*PAIRS, ("London", "a"), ("London", "London"), ("sea sea sea", "text"), ("met", "in"), ("long", "long text")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return write_classifiers(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("task", TASKS)
def test_as_the_pipeline_says(example: Path, made: Made, tmp_path: Path, task: str) -> None:
    rows = [{"task": task, "text": text, "text_pair": pair} for text, pair in TEXTS]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = node(example, "node.mjs", made.path, "--input", tmp_path / "rows.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    scores = [{each["label"]: each["score"] for each in made.says[task](pair)} for pair in TEXTS]
    if task == "similarity":
        assert [each["value"] for each in answers] == pytest.approx([each["score"] for each in scores], abs=1e-4)
        return
    for answer, wanted in zip(answers, scores, strict=True):
        assert {each["name"]: each["probability"] for each in answer["labels"]} == pytest.approx(wanted, abs=1e-4)
    held = [", ".join(name for name in TASKS[task][1] if wanted[name] > 0.5) for wanted in scores]
    best = [max(wanted, key=wanted.__getitem__) for wanted in scores]
    assert [answer["label"] for answer in answers] == (best if task == "nli" else [names or "none" for names in held])
    assert task == "nli" or ("" in held and any("," in names for names in held)), held
