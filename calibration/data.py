"""Calibration data: texts (or token ids) from a jsonl file, a fixed number of rows per task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eptx._jsonl import read_rows
from eptx.errors import DataError, NotSupportedError

#: Rows of one task beyond these are not read: a route settles long before.
ROWS_PER_TASK = 128
_TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model")


def rows_by_task(file: Path, tasks: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The first rows of every task; a row without a task counts for each of them.

    Raises:
        DataError: the file cannot be read, is empty, or names an unknown task.
    """
    by_task: dict[str, list[dict[str, Any]]] = {task: [] for task in tasks}
    found = False
    for row in read_rows(file, error=DataError, token_ids=True):
        found = True
        task = row.get("task")
        if task is not None and task not in by_task:
            raise DataError(f"{file.name}: unknown task {task!r}; the adapter has {', '.join(tasks)}")
        for name in tasks if task is None else (task,):
            if len(by_task[name]) < ROWS_PER_TASK:
                by_task[name].append(row)
    if not found:
        raise DataError(f"{file.name}: holds no rows")
    return by_task


class Encoder:
    """Rows to the inputs of one model call each, without padding, with the base folder's own tokenizer.

    Args:
        base: the transformers folder.
        vocabulary: how many token ids the base has.
        max_length: the most tokens that it reads, where there is such a limit.
    """

    def __init__(self, base: Path, vocabulary: int, max_length: int | None) -> None:
        self._base = base
        self._vocabulary = vocabulary
        self._max_length = max_length
        self._tokenizer: Any = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, np.ndarray]]:
        """Arrays int64 [1, length] by input name, a row at a time.

        Raises:
            DataError: a row has token ids that the base does not read.
            NotSupportedError: a row is text, and the base folder has no tokenizer.
        """
        for row in rows:
            if "input_ids" in row:
                ids = self._checked(row["input_ids"])
                yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            else:
                encoded = self._load()(
                    row["text"], row.get("text_pair"), truncation=True, max_length=self._max_length, return_tensors="np"
                )
                yield {name: np.asarray(array, dtype=np.int64) for name, array in encoded.items()}

    def _checked(self, ids: Sequence[int]) -> np.ndarray:
        if max(ids) >= self._vocabulary:
            raise DataError(f"input_ids of a row hold {max(ids)}; the base has token ids 0 to {self._vocabulary - 1}")
        if self._max_length is not None and len(ids) > self._max_length:
            raise DataError(f"input_ids of a row are {len(ids)} tokens; the base reads at most {self._max_length}")
        return np.array([ids], dtype=np.int64)

    def _load(self) -> Any:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            # without files transformers makes a tokenizer of no words, which takes every text for unknown ones
            if not any(any(self._base.glob(pattern)) for pattern in _TOKENIZER_FILES):
                raise NotSupportedError(f"{self._base}: has no tokenizer; give rows with input_ids")
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(self._base, local_files_only=True)
            except Exception as error:  # tokenizers raises the bare class
                raise NotSupportedError(
                    f"{self._base}: its tokenizer cannot be read ({' '.join(str(error).split())[:80]}); "
                    "give rows with input_ids"
                ) from None
        return self._tokenizer
