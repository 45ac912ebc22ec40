"""Recipes on all-MiniLM-L6-v2: sequence classification with a saved head, named entities, and features."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from tests.recipes.recipe import Recipe, fit, on, samples
from tests.support.minilm import minilm

_STEPS = 60
_TEXTS = [
    "a fine film",
    "Ada Lovelace moved to London in 1835.",
    "the cat sat on the mat and the dog did not mind it at all",
]
_LABELS = {"sst2": ["negative", "positive"], "mnli": ["entailment", "neutral", "contradiction"]}


def _classifier(base: Path, labels: list[str]) -> Any:
    torch.manual_seed(0)
    names = dict(enumerate(labels))
    return AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(labels), id2label=names, label2id={name: i for i, name in names.items()}
    )


def _train_classifiers(base: Path, folder: Path) -> list[Path]:
    """One adapter of two labels and one of three, of different rank."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    for rank, (task, labels) in zip((8, 16), _LABELS.items(), strict=True):
        config = LoraConfig(task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=16, lora_dropout=0.1)
        model = get_peft_model(_classifier(base, labels), config)
        fit(model, _rows(tokenizer, samples(task)))
        model.save_pretrained(folder / task)
    return [folder / task for task in _LABELS]


def _rows(tokenizer: Any, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    shuffled = random.Random(0)
    for _ in range(_STEPS):
        batch = shuffled.sample(rows, 8)
        texts = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in batch]
        encoded = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        yield {**encoded, "labels": torch.tensor([int(row["label"]) for row in batch])}


def _load_classifier(base: Path, adapter: Path | None) -> Any:
    labels = _LABELS["sst2" if adapter is None else adapter.name]
    return on(_classifier(base, labels), adapter)


_ENTITIES = ["O", "B-PER", "I-PER", "B-LOC"]
_FIRST, _LAST = ("Ada", "Alan", "Grace", "Emmy"), ("Lovelace", "Turing", "Hopper", "Noether")
_PLACES = ("London", "Paris", "Berlin", "Zurich")


def _tagger(base: Path) -> Any:
    torch.manual_seed(0)
    return AutoModelForTokenClassification.from_pretrained(
        base, id2label=dict(enumerate(_ENTITIES)), label2id={name: i for i, name in enumerate(_ENTITIES)}
    )


def _train_tagger(base: Path, folder: Path) -> list[Path]:
    """Sentences made of names and places, with the labels on first sub-tokens as in transformers' recipe."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LoraConfig(task_type=TaskType.TOKEN_CLS, r=16, lora_alpha=16, lora_dropout=0.1, bias="all")
    model = get_peft_model(_tagger(base), config)
    fit(model, _sentences(tokenizer), rate=1e-3)
    model.save_pretrained(folder / "ner")
    return [folder / "ner"]


def _sentences(tokenizer: Any) -> Iterator[dict[str, Any]]:
    chosen = random.Random(0)
    for _ in range(_STEPS):
        words, tags = [], []
        for _ in range(8):
            first, last, place = (chosen.choice(names) for names in (_FIRST, _LAST, _PLACES))
            words.append([first, last, "moved", "to", place, "last", "year"])
            tags.append([1, 2, 0, 0, 3, 0, 0])
        encoded = tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
        labels = []
        for row, own in enumerate(tags):
            ids, before = encoded.word_ids(row), None
            labels.append([])
            for word in ids:
                labels[-1].append(-100 if word is None or word == before else own[word])
                before = word
        yield {**encoded, "labels": torch.tensor(labels)}


def _train_features(base: Path, folder: Path) -> list[Path]:
    """Sentence pairs by their similarity, mean pooling, two adapters."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = samples("stsb")
    for name, rank in (("similar", 8), ("search", 4)):
        torch.manual_seed(rank)
        config = LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=rank, target_modules=["query", "key", "value"])
        model = get_peft_model(AutoModel.from_pretrained(base), config)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        chosen = random.Random(rank)
        for _ in range(_STEPS):
            batch = chosen.sample(rows, 8)
            one, other = (_pooled(model, tokenizer, [row[key] for row in batch]) for key in ("text", "text_pair"))
            wanted = torch.tensor([float(row["label"]) / 5 for row in batch])
            loss = ((torch.cosine_similarity(one, other) - wanted) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(folder / name)
    return [folder / name for name in ("similar", "search")]


def _pooled(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    hidden, mask = model(**encoded).last_hidden_state, encoded["attention_mask"][..., None]
    pooled: torch.Tensor = (hidden * mask).sum(1) / mask.sum(1)
    return pooled


RECIPES = (
    Recipe("sequence classification, saved head", minilm, _train_classifiers, _load_classifier, _TEXTS),
    Recipe("named entities", minilm, _train_tagger, lambda base, adapter: on(_tagger(base), adapter), _TEXTS),
    Recipe(
        "features, mean pooling",
        minilm,
        _train_features,
        lambda base, adapter: on(AutoModel.from_pretrained(base), adapter),
        _TEXTS,
        "last_hidden_state",
    ),
)
