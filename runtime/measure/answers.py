"""A bundle's answers to rows, in batches that mix tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from eptx.bundle import Manifest, Task
from eptx.errors import DataError, RequestError
from eptx.runtime.measure.labels import kind_of, label_number, label_set
from eptx.runtime.measure.metrics import as_objects
from eptx.runtime.measure.rows import Row
from eptx.runtime.outputs import Outputs
from eptx.runtime.requests.rows import pad_rows
from eptx.runtime.session import Session

#: Rows of one batch, and positions of one (of a generator, whose logits are as wide as its vocabulary).
_ROWS, _POSITIONS = 32, 768
_NEW_TOKENS = 16
_NONE = np.zeros(0)
#: A row's answer, and what it is sure of.
_Found = tuple[np.ndarray, np.ndarray]


@dataclass
class Answers:
    """What a bundle answered.

    Attributes:
        kinds: task -> "labels" (logits [labels], the greatest counts), "sets" (logits [labels], those above 0 count),
            "value" (one logit), "vector" (the row's output without padding) or "tokens" (as greedy decoding gives).
    """

    kinds: Mapping[str, str]
    _answers: dict[str, list[np.ndarray]]
    _labels: dict[str, np.ndarray | None]
    _confidence: dict[str, list[np.ndarray]]

    def of(self, task: str) -> Sequence[np.ndarray]:
        """The answers to a task's rows, in their order."""
        return self._answers[task]

    def confidence(self, task: str) -> Sequence[np.ndarray]:
        """Of "tokens": the probability of the row's own tokens at the places of its answer."""
        return self._confidence[task]

    def labels(self, task: str) -> np.ndarray | None:
        """The labels of a task's rows, to compare its answers with; None if a row has none."""
        return self._labels[task]


@dataclass
class _Encoded:
    """A row as arrays, and where it belongs."""

    row: Row
    index: int
    arrays: dict[str, np.ndarray]
    wanted: tuple[int, ...] | None = None

    @property
    def length(self) -> int:
        return len(self.arrays["input_ids"])


@dataclass
class Probe:
    """Rows for several bundles of the same base to answer.

    Args:
        session: of a bundle whose tokenizer and tasks are those of all.
        rows: task -> its rows.

    Raises:
        DataError: a label is not one that the task can have, or a row is not one that the model reads.
    """

    session: Session
    rows: Mapping[str, Sequence[Row]]
    _encoded: list[_Encoded] = field(default_factory=list)

    def __post_init__(self) -> None:
        manifest = self.session.manifest
        self._specs = {task.name: task for task in manifest.tasks}
        self.kinds = {task: _kind(manifest, self._specs[task]) for task in self.rows}
        self._labels = {task: self._numbers(task) for task in self.rows}
        for task, rows in self.rows.items():
            self._encoded += [self._encode(index, row, task) for index, row in enumerate(rows)]
        self._encoded.sort(key=lambda e: ("token_type_ids" in e.arrays, e.length))

    def run(self, session: Session) -> Answers:
        """A bundle's answers to all rows.

        Raises:
            DataError: it does not take the rows.
        """
        answers, confidence = (
            {task: [_NONE] * len(rows) for task, rows in self.rows.items()} for _ in ("answers", "confidence")
        )
        for batch in self.batches():
            try:
                found = _ask(session, batch, self.kinds, self._specs)
            except RequestError as error:
                raise DataError(f"the rows do not fit the bundle: {error}") from None
            for item, (answer, likely) in zip(batch, found, strict=True):
                answers[item.row.task][item.index], confidence[item.row.task][item.index] = answer, likely
        return Answers(self.kinds, answers, self._labels, confidence)

    def labelled(self, task: str) -> bool:
        """Whether a task's answers can be compared with labels."""
        return self._labels[task] is not None

    def outputs(self, session: Session) -> Iterator[Outputs]:
        """All outputs of a bundle for each batch; not for encoder-decoders, which answer token by token."""
        for batch in self.batches():
            yield _outputs(session, batch)

    def batches(self) -> Iterator[list[_Encoded]]:
        """The rows in batches of about the same length."""
        generates = self.session.manifest.generation is not None
        batch: list[_Encoded] = []
        for item in self._encoded:
            full = len(batch) == _ROWS or (generates and (len(batch) + 1) * item.length > _POSITIONS)
            if batch and (full or batch[0].arrays.keys() != item.arrays.keys()):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _numbers(self, task: str) -> np.ndarray | None:
        labels = [row.label for row in self.rows[task]]
        if any(label is None for label in labels):
            return None
        if self.kinds[task] == "tokens":
            return self._wanted_tokens(task)
        if self.kinds[task] == "vector":
            return None
        if self.kinds[task] == "sets":
            return np.array([label_set(row, self._specs[task], self._width(task)) for row in self.rows[task]])
        return np.array([label_number(row, self._specs[task], self.kinds[task]) for row in self.rows[task]])

    def _width(self, task: str) -> int | None:
        """How many labels a task has, if the bundle says so."""
        (width,) = (spec.shape[1] for spec in self.session.outputs if spec.name == "logits")
        return self._specs[task].labels or (width if isinstance(width, int) else None)

    def _wanted_tokens(self, task: str) -> np.ndarray:
        wanted = []
        for row in self.rows[task]:
            if isinstance(row.label, str):
                with _named(row):
                    wanted.append(tuple(self.session.tokenizer.encode([row.label], special=False)[0]))
            elif isinstance(row.label, tuple) and row.label and isinstance(row.label[0], int):
                wanted.append(tuple(map(int, row.label)))
            else:
                raise DataError(
                    f"{row.where}: a label of {task} is {row.label!r}; it must be the text to generate or its token ids"
                )
        return as_objects(wanted)

    def _encode(self, index: int, row: Row, task: str) -> _Encoded:
        manifest = self.session.manifest
        if row.input_ids is not None:
            arrays = {"input_ids": np.array(row.input_ids), "attention_mask": np.ones(len(row.input_ids), np.int64)}
        elif row.text_pair is not None and manifest.generation is not None:
            raise DataError(f"{row.where}: has a text_pair; a language model reads one text")
        else:
            assert row.text is not None
            text = [row.text] if row.text_pair is None else [(row.text, row.text_pair)]
            with _named(row):
                arrays = {name: np.asarray(array)[0] for name, array in self.session.tokenizer(text).items()}
        labels = self._labels[task] if self.kinds[task] == "tokens" else None
        wanted = () if labels is None else labels[index]
        _check_ids([*arrays["input_ids"], *wanted], row, manifest, self._specs[task])
        return _Encoded(row, index, arrays, wanted or None)


@contextmanager
def _named(row: Row) -> Iterator[None]:
    """Errors of the tokenizer name the row."""
    try:
        yield
    except RequestError as error:
        raise DataError(f"{row.where}: {error}") from None


def _check_ids(ids: Sequence[int], row: Row, manifest: Manifest, task: Task) -> None:
    """Checks that the row's task has these tokens; a decoder reads prompt and answer in one context."""
    largest, known = max(ids), task.vocab_size or manifest.vocab_size or 2**63
    if largest >= known:
        what = "the model" if task.vocab_size is None else f"task {task.name}"
        raise DataError(f"{row.where}: holds token id {largest}; {what} has token ids 0 to {known - 1}")
    if manifest.encoder is None and manifest.max_length is not None and len(ids) > manifest.max_length:
        raise DataError(f"{row.where}: is {len(ids)} tokens; the model reads at most {manifest.max_length}")


def _kind(manifest: Manifest, task: Task) -> str:
    if manifest.generation is not None:
        return "tokens"
    logits = next((spec for spec in manifest.outputs if spec.name == "logits"), None)
    if logits is None or len(logits.shape) != 2:
        return "vector"
    return kind_of(task.problem_type, logits.shape[1] if task.labels is None else task.labels)


def _ask(
    session: Session, batch: Sequence[_Encoded], kinds: Mapping[str, str], specs: Mapping[str, Task]
) -> list[_Found]:
    if session.manifest.encoder is not None:
        return _generated(session, batch)
    if session.manifest.generation is not None:
        return _forced(session, batch)
    outputs = _outputs(session, batch)
    answers = []
    for index, item in enumerate(batch):
        if kinds[item.row.task] == "vector":
            first = np.asarray(outputs[session.outputs[0].name][index], dtype=np.float64)
            answers.append((first[: item.length].mean(0) if first.ndim == 2 else first, _NONE))
        else:
            logits = np.asarray(outputs["logits"][index], dtype=np.float64)
            answers.append((logits[: specs[item.row.task].labels or len(logits)], _NONE))
    return answers


def _outputs(session: Session, batch: Sequence[_Encoded]) -> Outputs:
    """One run; a decoder also reads the rows' answers."""
    if session.manifest.generation is not None:
        batch = [_answered(item) for item in batch]
    feeds = {spec.name for spec in session.inputs}
    arrays = {name: array for name, array in _padded(session, batch).items() if name in feeds}
    return session.run(arrays, _tasks(session, batch))


def _tasks(session: Session, batch: Sequence[_Encoded]) -> list[str] | None:
    return [item.row.task for item in batch] if len(session.tasks) > 1 else None


def _answered(item: _Encoded) -> _Encoded:
    """A prompt followed by its answer."""
    ids = np.array([*item.arrays["input_ids"], *(item.wanted or ())], dtype=np.int64)
    return _Encoded(item.row, item.index, {"input_ids": ids, "attention_mask": np.ones_like(ids)})


def _padded(session: Session, batch: Sequence[_Encoded]) -> dict[str, np.ndarray]:
    """Rows of one length, padded on the right."""
    pads = {"input_ids": session.manifest.generation.pad} if session.manifest.generation is not None else {}
    return {name: pad_rows([item.arrays[name] for item in batch], pads.get(name, 0)) for name in batch[0].arrays}


def _forced(session: Session, batch: Sequence[_Encoded]) -> list[_Found]:
    """The most likely token at every position of the answer, after the right tokens before it (teacher forcing).

    If all are right, greedy decoding gives them too. Without a label, the text's last tokens are its answer.
    """
    items = [_answered(item) for item in batch]
    logits = _outputs(session, batch)["logits"]
    answers = []
    for index, item in enumerate(batch):
        count = len(item.wanted) if item.wanted else min(_NEW_TOKENS, item.length - 1)
        end = items[index].length - 1
        own = np.asarray(logits[index, end - count : end], dtype=np.float64)
        there = items[index].arrays["input_ids"][end - count + 1 :]
        own -= own.max(-1, keepdims=True)
        likely = np.exp(own[np.arange(count), there]) / np.exp(own).sum(-1)
        answers.append((own.argmax(-1), likely))
    return answers


def _generated(session: Session, batch: Sequence[_Encoded]) -> list[_Found]:
    """What an encoder-decoder answers greedily, as many tokens as the label has."""
    most = max(len(item.wanted) if item.wanted else _NEW_TOKENS for item in batch)
    prompts = [item.arrays["input_ids"].tolist() for item in batch]
    found = session.generate(prompts, _tasks(session, batch), max_new_tokens=most)
    lengths = [len(item.wanted) if item.wanted else most for item in batch]
    return [(np.array(ids[:length]), _NONE) for ids, length in zip(found.token_ids, lengths, strict=True)]
