"""Wrote the folders beside it, with datasets 5.2.0 (which the tests do not need): python write.py."""

from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

HERE = Path(__file__).parent
PAIRS = Features(
    {
        "sentence1": Value("string"),
        "sentence2": Value("string"),
        "label": ClassLabel(names=["entailment", "neutral", "contradiction"]),
        "idx": Value("int32"),
    }
)


def pairs(name: str, labels: list[int]) -> Dataset:
    columns = {"sentence1": [f"{name} {i}" for i in range(len(labels))], "sentence2": ["a film"] * len(labels)}
    return Dataset.from_dict({**columns, "label": labels, "idx": [*range(len(labels))]}, features=PAIRS)


def single(name: str, labels: list[int]) -> Dataset:
    return Dataset.from_dict({"sentence": [f"{name} {i}" for i in range(len(labels))], "label": labels})


pairs("good", [0, 2, 1, -1]).select([3, 0, 2, 1]).save_to_disk(HERE / "shards", num_shards=2)
DatasetDict(train=pairs("train", [0]), validation=pairs("validation", [1, 2])).save_to_disk(HERE / "splits")
DatasetDict(sst2=single("sst2", [1, 0]), mnli=pairs("mnli", [2])).save_to_disk(HERE / "tasks")
for config, split, rows in (
    ("sst2", "validation", single("sst2", [1, 0])),
    ("sst2", "test", single("test", [0])),
    ("mnli", "train", pairs("train", [0])),
    ("mnli", "validation_matched", pairs("matched", [1])),
    ("ax", "test", pairs("ax", [-1])),
):
    rows.to_parquet(HERE / "hub" / config / f"{split}-00000-of-00001.parquet")
