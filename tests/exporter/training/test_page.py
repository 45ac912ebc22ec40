"""docs/training.md: its code trains, and its commands make a validated bundle of that, as they stand there."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoTokenizer, BertConfig, BertModel

from eptx.cli import cli
from tests.support.minilm import minilm

PAGE = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
WORDS = {
    "mood": {"bad": "awful dull broken", "good": "fine lovely great"},
    "topic": {"delivery": "parcel courier late", "price": "cheap money cost", "quality": "solid sturdy leather"},
    "stars": {"1": "awful broken cheap", "4.5": "fine great lovely"},
}


def block(kind: str) -> str:
    (found, *_) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def write_rows(path: Path, per_task: int) -> None:
    """A label shows in the words of its text."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(3 * per_task):
        task = list(WORDS)[i % 3]
        label = str(rng.choice(list(WORDS[task])))
        rows.append({"task": task, "text": " ".join(rng.choice(WORDS[task][label].split(), 4)), "label": label})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["task", "text", "label"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    BertModel(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    write_rows(tmp_path / "rows.csv", per_task=60)
    code = block("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["trainer"].evaluate()["eval_mean"] > 0.8
    said = []
    for command in block("console").splitlines():
        program, *arguments = shlex.split(command.removeprefix("$ "))
        assert program == "eptx"
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        said.append(result.stdout)
    assert len(said) == 3 and "passed" in said[1]
    assert said[2].split()[:2] == ["mood", "good"]
