"""The desk: from a customer's message to one batch of rows of several tasks, and from its logits to an answer."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: How many labels each task that the desk asks has, in GLUE's order.
LABELS = {
    "sst2": ("negative", "positive"),
    "stsb": ("similarity",),  # a number from 0 to 5
    "mrpc": ("not_equivalent", "equivalent"),
    "qnli": ("entailment", "not_entailment"),  # entailment: the sentence answers the question
    "mnli": ("entailment", "neutral", "contradiction"),
}
_MOST_SIMILAR = 5.0
#: How sure qnli is of a policy that is shown as an answer, and of one by which mnli judges what the customer says.
_CONCERNS, _JUDGES = 0.5, 0.8


@dataclass(frozen=True)
class Shop:
    """What the desk knows.

    Attributes:
        faq: known questions and their answers: dictionaries of ``question`` and ``answer``.
        policies: one sentence each.
    """

    faq: Sequence[dict[str, str]]
    policies: Sequence[str]

    @classmethod
    def read(cls, path: Path) -> Shop:
        """The shop of a JSON file."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(data["faq"], data["policies"])


@dataclass(frozen=True)
class Row:
    """One row of the batch: what is asked of two texts. A single text has an empty partner."""

    task: str
    text: str
    text_pair: str = ""


def ask(shop: Shop, message: str) -> list[Row]:
    """Everything that the desk wants to know of a message."""
    questions = [entry["question"] for entry in shop.faq]
    return [
        Row("sst2", message),
        *(Row("stsb", message, question) for question in questions),
        *(Row("mrpc", message, question) for question in questions),
        *(Row("qnli", message, policy) for policy in shop.policies),
        *(Row("mnli", policy, message) for policy in shop.policies),  # premise, hypothesis
    ]


def request(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows as one request of the Open Inference Protocol, which names the task of each."""
    return {
        "inputs": [_texts("text", [row.text for row in rows]), _texts("text_pair", [row.text_pair for row in rows])],
        "parameters": {"tasks": [row.task for row in rows]},
        "outputs": [{"name": "logits"}],
    }


def logits_of(response: dict[str, Any], rows: Sequence[Row]) -> list[list[float]]:
    """Each row's logits, without those that pad it to the width of the widest task."""
    (output,) = response["outputs"]
    width = output["shape"][1]
    return [output["data"][i * width :][: len(LABELS[row.task])] for i, row in enumerate(rows)]


def answer(shop: Shop, message: str, logits: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What the logits of `ask` say.

    Returns:
        ``positive``, the probability that the message is; ``questions`` and ``policies``, the best first.
    """
    rows = iter(logits)

    def take(count: int) -> list[Sequence[float]]:
        return [next(rows) for _ in range(count)]

    (mood,) = take(1)
    similar, same = take(len(shop.faq)), take(len(shop.faq))
    about, claims = take(len(shop.policies)), take(len(shop.policies))
    return {
        "positive": _softmax(mood)[1],
        "questions": _questions(shop, similar, same),
        "policies": _policies(shop, message, about, claims),
    }


def tasks_of(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows each task has."""
    return dict(Counter(row.task for row in rows))


def _questions(shop: Shop, similar: Sequence[Sequence[float]], same: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """The FAQ by similarity and paraphrase together: neither task alone is sure enough."""
    entries: list[dict[str, Any]] = []
    for entry, (score,), pair in zip(shop.faq, similar, same, strict=True):
        similarity, paraphrase = min(max(score, 0.0), _MOST_SIMILAR), _softmax(pair)[1]
        match = (similarity / _MOST_SIMILAR + paraphrase) / 2
        entries.append({**entry, "similarity": similarity, "same": paraphrase, "match": match})
    return sorted(entries, key=lambda entry: entry["match"], reverse=True)


def _policies(
    shop: Shop, message: str, about: Sequence[Sequence[float]], claims: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """The policies, those that are about the message first: qnli finds the policy, mnli judges by it."""
    entries = []
    for policy, found, judged in zip(shop.policies, about, claims, strict=True):
        entailed, neutral, contradicted = _softmax(judged)
        entry = {"policy": policy, "about": _softmax(found)[0]}
        entry |= {"supports": entailed, "neutral": neutral, "contradicts": contradicted}
        entries.append({**entry, "verdict": _verdict(message, entry)})
    return sorted(entries, key=lambda entry: entry["about"], reverse=True)


def _verdict(message: str, entry: dict[str, Any]) -> str:
    """What a policy does to a message: ``silent``, ``concerns``, ``supports``, ``neutral`` or ``contradicts``.

    The last three are for claims. A question claims nothing, and of a complaint qnli is less sure.
    """
    if entry["about"] < _CONCERNS:
        return "silent"
    if entry["about"] < _JUDGES or message.endswith("?"):
        return "concerns"
    return max("supports", "neutral", "contradicts", key=lambda name: entry[name])


def _texts(name: str, texts: Sequence[str]) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}


def _softmax(logits: Sequence[float]) -> list[float]:
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / sum(weights) for weight in weights]
