"""``eptx run``."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from eptx._jsonl import read_rows
from eptx.cli._common import PATH, output_options, print_json, printable
from eptx.errors import NotSupportedError, RequestError


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("texts", nargs=-1)
@click.option("--task", help="Task of the texts: a name, or 'auto' where the bundle can infer it.")
@click.option(
    "--input", "file", type=PATH, metavar="FILE.jsonl", help="Rows with text, text_pair and task instead of TEXTS."
)
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@output_options
def run(
    bundle: Path,
    texts: tuple[str, ...],
    task: str | None,
    file: Path | None,
    provider: str,
    batch_size: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run texts through a bundle: from the arguments, a jsonl file, or lines of standard input."""
    from eptx.runtime import Session

    if texts and file is not None:
        raise click.UsageError("give TEXTS or --input, not both")
    session = Session(bundle, provider=provider)
    results = []
    for rows in _batches(_rows(texts, file, task), batch_size):
        for result in _answer(session, rows):
            results.append(result)
            if not as_json:
                click.echo(_line(result))
    if as_json:
        print_json([_without_nan(result) for result in results])


def _rows(texts: Sequence[str], file: Path | None, task: str | None) -> Iterator[dict[str, Any]]:
    if file is not None:
        for row in read_rows(file, error=RequestError):
            yield row if task is None else {**row, "task": task}
        return
    for text in texts if texts else _lines_of_stdin():
        yield {"text": text, "task": task}


def _lines_of_stdin() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise RequestError(f"standard input, line {number}: not UTF-8 text") from None


def _batches(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Rows in batches; pairs and single texts do not share one."""
    batch: list[dict[str, Any]] = []
    for row in rows:
        if batch and (len(batch) == size or _kind(batch[0]) != _kind(row)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _kind(row: dict[str, Any]) -> tuple[bool, bool]:
    return "text_pair" in row, row.get("task") is None


def _answer(session: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    texts = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in rows]
    tasks = None if rows[0].get("task") is None else [row["task"] for row in rows]
    outputs = session.run(texts, task=tasks)
    answers: list[dict[str, Any]] = []
    for row, task, logits, label in zip(rows, outputs.tasks, outputs.logits, outputs.labels, strict=True):
        if logits.ndim != 1:
            raise NotSupportedError("eptx run prints the answers of classifiers; use eptx.Session for other outputs")
        shown: dict[str, Any] = {key: row[key] for key in ("text", "text_pair") if key in row}
        answers.append({**shown, "task": task, "label": label, "logits": [float(value) for value in logits]})
    return answers


def _without_nan(result: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    logits = [value if math.isfinite(value) else None for value in result["logits"]]
    label = result["label"]
    return {
        **result,
        "logits": logits,
        "label": None if isinstance(label, float) and not math.isfinite(label) else label,
    }


def _line(result: dict[str, Any]) -> str:
    numbers = " ".join(f"{value:.4f}" for value in result["logits"])
    text = " | ".join(result[key] for key in ("text", "text_pair") if key in result)
    return "\t".join(printable(str(part)) for part in (result["task"], result["label"], numbers, text))
