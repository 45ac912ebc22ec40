"""GLUE rows from JSON lines, and their tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from eptx.exporter.training import Example

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


@dataclass(frozen=True)
class Row:
    """One labelled text or pair of texts."""

    text: str
    text_pair: str | None
    label: float


def read_rows(folder: Path, task: str, split: str) -> list[Row]:
    """Rows of ``<folder>/<task>.<split>.jsonl``: objects with text, label and, for pairs, text_pair."""
    path = folder / f"{task}.{split}.jsonl"
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines if line.strip()]
    return [Row(record["text"], record.get("text_pair"), record["label"]) for record in records]


def tokenize(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], task: int) -> list[Example]:
    """Rows of one task as token ids, cut to ``MAX_LENGTH``."""
    pairs = None if rows[0].text_pair is None else [row.text_pair or "" for row in rows]
    encoded = tokenizer([row.text for row in rows], pairs, truncation=True, max_length=MAX_LENGTH)
    parts: Iterable[tuple[Row, list[int], list[int]]] = zip(
        rows, encoded["input_ids"], encoded["token_type_ids"], strict=True
    )
    return [Example(tuple(ids), tuple(types), task, float(row.label)) for row, ids, types in parts]


def write_samples(folder: Path, target: Path, count: int = 16) -> None:
    """The first validation rows of every task as one file, for demos and calibration."""
    lines = []
    for task in TASKS:
        for row in read_rows(folder, task, "validation")[:count]:
            record = {"task": task, "text": row.text, "text_pair": row.text_pair, "label": row.label}
            lines.append(json.dumps({k: v for k, v in record.items() if v is not None}, ensure_ascii=False))
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
