"""GLUE rows from JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_LENGTH = 128

#: Task -> names of its labels, in the order of GLUE's label numbers. One name: a regression.
TASKS: dict[str, list[str]] = {
    "cola": ["unacceptable", "acceptable"],
    "mnli": ["entailment", "neutral", "contradiction"],
    "mrpc": ["not_equivalent", "equivalent"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
    "sst2": ["negative", "positive"],
    "stsb": ["similarity"],
}


def read_rows(folder: Path, task: str, split: str) -> list[dict[str, Any]]:
    """Rows of ``<folder>/<task>.<split>.jsonl``: objects with text, label and, for pairs, text_pair; and their task."""
    path = folder / f"{task}.{split}.jsonl"
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines if line.strip()]
    return [{"task": task, **record} for record in records]


def write_samples(folder: Path, target: Path, count: int = 16) -> None:
    """The first validation rows of every task as one file, for demos and calibration."""
    lines = []
    for task in TASKS:
        for row in read_rows(folder, task, "validation")[:count]:
            lines.append(json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False))
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
