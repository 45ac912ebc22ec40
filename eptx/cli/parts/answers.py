"""The answers that ``eptx run`` prints."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from eptx.cli.parts.common import printable
from eptx.errors import NotSupportedError, RequestError
from eptx.files.safe_files import open_regular


def classify(session: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a classifier says of each row: labels, how sure they are, and logits; or entities; or the answer."""
    from eptx.runtime.spans import kind_of_bundle

    texts = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in rows]
    outputs = session.run(texts, task=_tasks(rows))
    said = {"entities": _entities, "answers": _answers, None: _labels}[kind_of_bundle(session.manifest)](outputs)
    shown: list[dict[str, Any]] = [{key: row[key] for key in ("text", "text_pair") if key in row} for row in rows]
    return [{**row, "task": task, **own} for row, task, own in zip(shown, outputs.tasks, said, strict=True)]


def _labels(outputs: Any) -> Iterator[dict[str, Any]]:
    for logits, label, score in zip(outputs.logits, outputs.labels, outputs.scores, strict=True):
        if logits.ndim != 1 and not isinstance(label, list):
            raise NotSupportedError("eptx run prints the answers of classifiers; use eptx.Session for other outputs")
        yield {"label": label, "score": score, "logits": logits.tolist()}


def _entities(outputs: Any) -> Iterator[dict[str, Any]]:
    from eptx.runtime.spans import as_json

    for entities, labels in zip(outputs.entities, _labels(outputs), strict=True):
        # a token that may have several labels is of no entity
        yield labels if entities is None else {"entities": [as_json(entity) for entity in entities]}


def _answers(outputs: Any) -> Iterator[dict[str, Any]]:
    for found in outputs.answers:
        said = (found.text, found.score, found.start, found.end) if found is not None else ("", None, None, None)
        yield dict(zip(("answer", "score", "start", "end"), said, strict=True))


def generate(session: Any, rows: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
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


def generate_of_arrays(session: Any, file: Path, task: str | None, **settings: Any) -> list[dict[str, Any]]:
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


def line(result: dict[str, Any]) -> str:
    """An answer on one line."""
    text = " | ".join(result[key] for key in ("text", "text_pair") if key in result)
    if "entities" in result:
        found = result["entities"]
        said = [", ".join(f"{e['label']}: {e['word']}" for e in found), _numbers(e["score"] for e in found)]
    elif "answer" in result:
        said = [result["answer"], *([_numbers([result["score"]])] if result.get("score") is not None else [])]
    else:
        said = [_shown(result["label"]), _numbers(_flat(result["logits"]))]
    return "\t".join(printable(part) for part in (result["task"], *said, text))


def without_nan(result: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {key: _finite(value) for key, value in result.items()}


def _numbers(values: Iterable[float | None]) -> str:
    return " ".join("nan" if value is None else f"{value:.4f}" for value in values)


def _finite(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(logits: list[Any]) -> Iterator[float]:
    for value in logits:
        yield from _flat(value) if isinstance(value, list) else (value,)


def _shown(label: Any) -> str:
    """A label; several, or one of each token, separated by commas."""
    return ", ".join(map(_shown, label)) if isinstance(label, list | tuple) else str(label)


def _tasks(rows: list[dict[str, Any]]) -> list[str] | None:
    return None if rows[0].get("task") is None else [row["task"] for row in rows]
