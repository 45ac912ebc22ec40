"""The answers that ``eptx run`` prints."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eptx.cli.parts.common import printable
from eptx.cli.parts.lines import SHOWN
from eptx.cli.parts.rows import IMAGE
from eptx.errors import NotSupportedError, RequestError
from eptx.files.safe_files import open_regular
from eptx.manifest.names import BASE_TASK, EMBEDDING, HIDDEN, LOGITS

if TYPE_CHECKING:
    from eptx.runtime import Outputs, Session

Result = dict[str, Any]

#: What of a row stands beside its answer.
_OF_ROW = ("text", "text_pair", IMAGE)


def classify(session: Session, rows: list[Result]) -> list[Result]:
    """What a bundle says of each row: its label, every label's score and the logits; its entities; its answer; or, for
    a task without a head, the embedding or the features.
    """
    from eptx.runtime.spans import kind_of_bundle

    outputs = session.run(_inputs(rows), task=_tasks(rows))
    kind = kind_of_bundle(session.manifest)
    said = {"entities": _entities, "answers": _answers, None: _labels}[kind](session, outputs)
    return [{**_shown(row), "task": task, **own} for row, task, own in zip(rows, outputs.tasks, said, strict=True)]


def _labels(session: Session, outputs: Outputs) -> Iterator[Result]:
    if LOGITS not in outputs:
        yield from (_features(outputs, row) for row in range(len(outputs.tasks)))
        return
    tasks = {task.name: task for task in session.manifest.tasks}
    for row, found in enumerate(
        zip(outputs.logits, outputs.labels, outputs.scores, outputs.probabilities, strict=True)
    ):
        logits, label, score, likely = found
        if label is None:
            yield _features(outputs, row)
            continue
        if logits.ndim != 1 and not isinstance(label, list):
            raise NotSupportedError("eptx run prints the answers of classifiers; use eptx.Session for other outputs")
        said = {"label": label, "score": score, "logits": logits.tolist()}
        if likely is not None and likely.ndim == 1:
            names = tasks[outputs.tasks[row]].label_names or range(likely.size)
            pairs = zip(names, likely.tolist(), strict=True)
            said["scores"] = [{"label": name, "score": each} for name, each in pairs]
        yield said


def _features(outputs: Outputs, row: int) -> Result:
    """What there is for a row of a task without a head."""
    if EMBEDDING in outputs:
        return {EMBEDDING: outputs[EMBEDDING][row].tolist()}
    name = HIDDEN if HIDDEN in outputs else next((name for name in outputs if outputs[name].dtype.kind == "f"), HIDDEN)
    if name not in outputs or len(outputs[name]) != len(outputs.tasks):
        raise NotSupportedError("eptx run prints labels, embeddings and features; use eptx.Session for other outputs")
    own = outputs.features[row] if name == HIDDEN else outputs[name][row]
    return {"features": {"output": name, "shape": list(own.shape), "first": own.ravel()[:SHOWN].tolist()}}


def _entities(session: Session, outputs: Outputs) -> Iterator[Result]:
    from eptx.runtime.spans import as_json

    for entities, labels in zip(outputs.entities, _labels(session, outputs), strict=True):
        # a token that may have several labels is of no entity
        yield labels if entities is None else {"entities": [as_json(entity) for entity in entities]}


def _answers(session: Session, outputs: Outputs) -> Iterator[Result]:
    for found in outputs.answers:
        said = (found.text, found.score, found.start, found.end) if found is not None else ("", None, None, None)
        yield dict(zip(("answer", "score", "start", "end"), said, strict=True))


def embed(session: Session, rows: list[Result], **form: Any) -> Iterator[Result]:
    """Each row's embedding, and the task that it is of."""
    usual = BASE_TASK if BASE_TASK in session.tasks else session.tasks[0]
    for row, vector in zip(rows, session.embed(_inputs(rows), _tasks(rows), **form), strict=True):
        yield {**_shown(row), "task": row.get("task") or usual, "embedding": vector.tolist()}


def generate(session: Session, rows: list[Result], **settings: Any) -> list[Result]:
    """Each row's answer."""
    if "text_pair" in rows[0]:
        raise RequestError("a language model has no text_pair; write both into text")
    made = session.generate([row["text"] for row in rows], _tasks(rows), **settings)
    return [
        {"text": row["text"], "task": task, "answer": answer, "tokens": len(ids), "finish_reason": reason}
        for row, task, answer, ids, reason in zip(
            rows, made.tasks, made.texts, made.token_ids, made.finish_reasons, strict=True
        )
    ]


def generate_of_arrays(session: Session, file: Path, task: str | None, **settings: Any) -> list[Result]:
    """The answer to each row of a file of arrays.

    Raises:
        RequestError: the file holds no arrays, or not those that the bundle reads.
    """
    import numpy as np

    with open_regular(file, error=RequestError) as opened:
        try:
            with np.load(opened, allow_pickle=False) as arrays:
                inputs = {name: arrays[name] for name in arrays.files}
        except (AttributeError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile):
            raise RequestError(f"{file.name}: holds no arrays by name; numpy.savez writes such a file") from None
    made = session.generate(inputs, task, **settings)
    answers = zip(made.tasks, made.texts, made.token_ids, made.finish_reasons, strict=True)
    return [
        {"text": f"row {row}", "task": task, "answer": answer, "tokens": len(ids), "finish_reason": reason}
        for row, (task, answer, ids, reason) in enumerate(answers)
    ]


def print_stream(pieces: Iterable[Any]) -> None:
    """Prints an answer as it comes."""
    for piece in pieces:
        shown = "\n".join(printable(line) for line in piece.text.split("\n"))
        click.echo(shown, nl=piece.finish_reason is not None)


def without_nan(result: Result) -> Result:
    """JSON has no NaN."""
    return {key: _finite(value) for key, value in result.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return without_nan(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _inputs(rows: list[Result]) -> list[Any]:
    if IMAGE in rows[0]:
        return [row[IMAGE] for row in rows]
    return [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in rows]


def _shown(row: Result) -> Result:
    return {key: row[key] for key in _OF_ROW if key in row}


def _tasks(rows: list[Result]) -> list[str] | None:
    return None if rows[0].get("task") is None else [row["task"] for row in rows]
