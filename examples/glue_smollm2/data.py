"""GLUE rows as text to text: a prompt, and the one word that answers it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Words of a row's text, or of its two texts together, that a prompt keeps: some 80 tokens.
MOST_WORDS = 64


@dataclass(frozen=True)
class Task:
    """How a task is asked.

    Attributes:
        prompt: with ``{text}`` and, for pairs, ``{text_pair}``. Each task's begins with another word, so that the
            first token tells the task.
        instruction: the same question for a model that was never trained on the prompts.
        words: the answers in the order of GLUE's label numbers, each a single token with the space before it.
    """

    prompt: str
    instruction: str
    words: tuple[str, ...]


TASKS: dict[str, Task] = {
    "cola": Task(
        "Sentence: {text}\nGrammar:",
        "Is the grammar of this sentence acceptable or unacceptable?\n\n{text}",
        ("unacceptable", "acceptable"),
    ),
    "mnli": Task(
        "Premise: {text}\nHypothesis: {text_pair}\nTrue, false or neither:",
        "{text}\n\nIs it true, false or neither (cannot be known from the text) that: {text_pair}",
        ("true", "neither", "false"),
    ),
    "mrpc": Task(
        "First: {text}\nSecond: {text_pair}\nMeaning:",
        "Is the meaning of these two sentences the same or different?\n\n1. {text}\n2. {text_pair}",
        ("different", "same"),
    ),
    "qnli": Task(
        "Question: {text}\nSentence: {text_pair}\nAnswered:",
        "{text_pair}\n\nDoes this sentence answer the question: {text} Answer yes or no.",
        ("yes", "no"),
    ),
    "rte": Task(
        "Text: {text}\nClaim: {text_pair}\nFollows:",
        "{text}\n\nDoes it follow from this text that: {text_pair} Answer yes or no.",
        ("yes", "no"),
    ),
    "sst2": Task(
        "Review: {text}\nSentiment:",
        "Is the sentiment of this movie review positive or negative?\n\n{text}",
        ("negative", "positive"),
    ),
}


@dataclass(frozen=True)
class Row:
    """One question: its task's name, the two ways to ask it, and the label's number."""

    task: str
    prompt: str
    instruction: str
    label: int

    @property
    def target(self) -> str:
        """The answer, with the space between it and the prompt."""
        return " " + TASKS[self.task].words[self.label]


def read_rows(folder: Path, task: str, split: str) -> list[Row]:
    """Rows of ``<folder>/<task>.<split>.jsonl``: objects with text, label and, for pairs, text_pair."""
    path = folder / f"{task}.{split}.jsonl"
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines if line.strip()]
    return [make_row(task, record["text"], record.get("text_pair"), int(record["label"])) for record in records]


def make_row(task: str, text: str, text_pair: str | None, label: int) -> Row:
    """The question that a text or pair of texts becomes; texts too long are cut at their ends."""
    first, second = _cut(text.split(), (text_pair or "").split())
    asked, texts = TASKS[task], {"text": " ".join(first), "text_pair": " ".join(second)}
    return Row(task, asked.prompt.format(**texts), asked.instruction.format(**texts), label)


def write_samples(folder: Path, target: Path, count: int = 16) -> None:
    """The first validation rows of every task as prompts and answers in one file, for the demo and calibration."""
    records = [
        {"task": task, "text": row.prompt, "label": row.target}
        for task in TASKS
        for row in read_rows(folder, task, "validation")[:count]
    ]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cut(first: Sequence[str], second: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Two texts of ``MOST_WORDS`` together at most: the longer one gives way, then both have half."""
    half = MOST_WORDS // 2
    short = min(len(first), len(second), half)
    if len(first) <= len(second):
        return first[:short], second[: MOST_WORDS - short]
    return first[: MOST_WORDS - short], second[:short]
