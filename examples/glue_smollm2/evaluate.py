"""What the tuned and the untuned model answer to the same validation rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from data import TASKS, Row

#: Rows of a batch.
ROWS = 24


def evaluate_tuned(model: Any, tokenizer: Any, rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Greedy answers and label ranking of the adapted model, in float32 and the released forward."""
    model.eval()
    results: dict[str, Any] = {}
    started = time.monotonic()
    for number, (task, own) in enumerate(rows.items()):
        answers = Answers(model, tokenizer, task, [row.prompt for row in own], number)
        labels = np.array([row.label for row in own])
        results[task] = {"rows": len(own), "ranked": score(task, answers.scores, labels)}
        results[task]["generated"] = {"accuracy": answers.exact(labels), "no_label": answers.no_label()}
        print(f"tuned {task} {results[task]}", flush=True)
    return {"tasks": results, "seconds": round(time.monotonic() - started)}


def evaluate_untuned(model: Any, tokenizer: Any, rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Label ranking of the base model, asked as it was trained to be and with the adapter's prompts.

    ``calibrated`` takes from each word's log-likelihood its mean over the rows: without that the model prefers one
    word whatever the text, and would be judged by which one.
    """
    model.eval()
    results: dict[str, Any] = {}
    started = time.monotonic()
    for task, own in rows.items():
        labels = np.array([row.label for row in own])
        results[task] = {"rows": len(own), "majority": round(float(np.bincount(labels).max() / len(labels)), 4)}
        asked = {
            "instruction": [_chat(tokenizer, row.instruction) for row in own],
            "prompt": [row.prompt for row in own],
        }
        for name, prompts in asked.items():
            answers = Answers(model, tokenizer, task, prompts, None, capitals=True)
            calibrated = answers.scores - answers.scores.mean(0)
            results[task][name] = {
                "ranked": score(task, answers.scores, labels),
                "calibrated": score(task, calibrated, labels),
                "generated": {"accuracy": answers.said_right(labels), "no_label": answers.no_label()},
            }
        print(f"untuned {task} {results[task]}", flush=True)
    return {"tasks": results, "seconds": round(time.monotonic() - started)}


def _chat(tokenizer: Any, instruction: str) -> str:
    """The model's own chat format, its answer begun so that a label's word comes next."""
    messages = [{"role": "user", "content": instruction}]
    chat: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return chat + "Answer:"


class Answers:
    """What a model says after prompts of one task.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        task: name of the task.
        prompts: what it is asked.
        number: the task's id in the adapter; None without one.
        capitals: take words that begin with a capital as the labels' words too, where those are single tokens.

    Attributes:
        scores: log-likelihood of each label, ``[rows, labels]``.
        said: label whose word is the likeliest of the whole vocabulary, ``[rows]``; -1 where none's is.
        ended: ``[rows, labels]``, whether the end is the likeliest after that label's word.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task: str,
        prompts: Sequence[str],
        number: int | None,
        *,
        capitals: bool = False,
    ) -> None:
        self.words = _spellings(tokenizer, TASKS[task].words, capitals)
        self.scores = np.zeros((len(prompts), self.words.shape[1]))
        self.said = np.full(len(prompts), -1)
        self.ended = np.zeros(self.scores.shape, bool)
        ids = tokenizer(list(prompts))["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for batch in (order[start : start + ROWS] for start in range(0, len(order), ROWS)):
            self._run(model, tokenizer, [ids[i] for i in batch], batch, number)

    def _run(self, model: Any, tokenizer: Any, ids: list[list[int]], batch: list[int], number: int | None) -> None:
        """One batch, padded on the left as for generation; the answers are tried in a second, short step."""
        longest = max(len(own) for own in ids)
        padded = torch.tensor([[tokenizer.pad_token_id] * (longest - len(own)) + own for own in ids])
        mask = torch.tensor([[0] * (longest - len(own)) + [1] * len(own) for own in ids])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        if number is not None:
            model.base_model.set_tasks([number] * len(ids))
        with torch.inference_mode():
            first = model(
                input_ids=padded, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
            )
            logits = first.logits[:, -1]
            said, label = (logits.argmax(1)[:, None, None] == torch.tensor(self.words)).any(1).max(1)
            self.said[batch] = torch.where(said, label, -1).numpy()
            self.scores[batch] = logits.log_softmax(1)[:, self.words].logsumexp(1).numpy()
            longer = torch.cat([mask, mask.new_ones(len(ids), 1)], 1)
            for label, word in enumerate(self.words[0].tolist()):
                step = model(
                    input_ids=torch.full((len(ids), 1), word),
                    attention_mask=longer,
                    position_ids=positions[:, -1:] + 1,
                    past_key_values=first.past_key_values,
                )
                first.past_key_values.crop(-1)
                self.ended[batch, label] = (step.logits[:, -1].argmax(1) == tokenizer.eos_token_id).numpy()

    def said_right(self, labels: np.ndarray) -> float:
        """Share of rows whose greedy answer begins with the right word."""
        return round(float((self.said == labels).mean()), 4)

    def exact(self, labels: np.ndarray) -> float:
        """Share of rows whose greedy answer is the right word and nothing after it."""
        return round(float(((self.said == labels) & self.ended[np.arange(len(labels)), labels]).mean()), 4)

    def no_label(self) -> float:
        """Share of rows whose greedy answer begins with no label's word."""
        return round(float((self.said == -1).mean()), 4)


def score(task: str, scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy of the best label, and for cola Matthews' correlation."""
    predicted = scores.argmax(1)
    values = {"accuracy": round(float((predicted == labels).mean()), 4)}
    if task == "cola":
        constant = predicted.std() == 0
        values["matthews"] = 0.0 if constant else round(float(np.corrcoef(predicted, labels)[0, 1]), 4)
    return values


def _spellings(tokenizer: Any, words: Sequence[str], capitals: bool) -> np.ndarray:
    """Token ids of the words, ``[spellings, labels]``."""
    spellings = [[" " + word for word in words], [" " + word.capitalize() for word in words]][: 1 + capitals]
    ids = [[tokenizer(word)["input_ids"] for word in spelling] for spelling in spellings]
    return np.array([[i for (i,) in own] for own in ids if all(len(word) == 1 for word in own)])
