"""``eptx run``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eptx.cli.parts import answers
from eptx.cli.parts.common import PATH, output_options, print_json, provider_option
from eptx.cli.parts.runs_on import print_runs_on
from eptx.errors import RequestError
from eptx.files.jsonl import read_rows

if TYPE_CHECKING:
    from eptx.runtime import Session


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("texts", nargs=-1)
@click.option("--task", help="Task of the texts: a name, or 'auto' where the bundle can infer it.")
@click.option(
    "--input",
    "file",
    type=PATH,
    metavar="FILE",
    help="FILE.jsonl: rows with text, text_pair and task instead of TEXTS. FILE.npz: arrays by name, a row each, for "
    "a language model that reads sound.",
)
@provider_option
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--max-new-tokens", type=int, metavar="N", help="Language models: how long an answer may get.")
@click.option("--temperature", type=float, help="Language models: 0, the default, takes the most likely token.")
@click.option("--top-k", type=int, metavar="K", help="Language models: draw among the K most likely tokens.")
@click.option("--top-p", type=float, metavar="P", help="Language models: draw among those that make up P.")
@click.option("--seed", type=int, help="Language models: draw the same again.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Language models: end the answer before this. Repeatable.")
@click.option(
    "--add-special-tokens/--no-special-tokens",
    default=None,
    help="Language models: put the tokenizer's special tokens around a text, or not; "
    "by default around texts that do not begin with them.",
)
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
    **settings: Any,
) -> None:
    """Run texts through a bundle: from the arguments, a jsonl file, or lines of standard input.

    Classifiers print each text's label and logits. Language models print the answer to a single text as it comes, and
    of several a line each. At the end, standard error has the provider and the kernels that ran.
    """
    from eptx.runtime import Session

    if texts and file is not None:
        raise click.UsageError("give TEXTS or --input, not both")
    given = {name: value for name, value in settings.items() if value not in (None, ())}
    session = Session(bundle, provider=provider)
    _answer(session, texts, task, file, batch_size, as_json, given)
    if not quiet:
        print_runs_on(session.info())


def _answer(
    session: Session,
    texts: Sequence[str],
    task: str | None,
    file: Path | None,
    batch_size: int,
    as_json: bool,
    given: dict[str, Any],
) -> None:
    generates = session.manifest.generation is not None
    if given and not generates:
        option = "--" + next(iter(given)).replace("_", "-")
        raise click.UsageError(f"{option} is for language models, and this bundle does not generate text")
    if generates and len(texts) == 1 and not as_json:
        answers.print_stream(session.stream(texts[0], task, **given))
        return
    if file is not None and file.suffix == ".npz":
        if not generates:
            raise click.UsageError("a file of arrays is for language models; use Session.run in Python")
        made = answers.generate_of_arrays(session, file, task, **given)
        if as_json:
            print_json(made)
        for result in () if as_json else made:
            click.echo(answers.line(result))
        return
    answer = answers.generate if generates else answers.classify
    results = []
    for rows in _batches(_rows(texts, file, task), batch_size):
        for result in answer(session, rows, **given):
            results.append(result)
            if not as_json:
                click.echo(answers.line(result))
    if as_json:
        print_json([answers.without_nan(result) for result in results])


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
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
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
