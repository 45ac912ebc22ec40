"""``eptx run``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eptx.cli.parts import answers
from eptx.cli.parts.chat import ChatOptions, chat
from eptx.cli.parts.common import PATH, output_options, print_json, printable, provider_option
from eptx.cli.parts.lines import Lines
from eptx.cli.parts.rows import IMAGE, Given, Row, batches, unescaped
from eptx.cli.parts.runs_on import print_runs_on
from eptx.errors import EptxError

if TYPE_CHECKING:
    from eptx.runtime import Session


#: How many rows are read before they are embedded: a session puts those of like length into its batches.
_EMBEDDED = 1024


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("texts", nargs=-1)
@click.option(
    "--pair",
    "pairs",
    nargs=2,
    multiple=True,
    metavar="A B",
    help="A pair of texts, as tasks such as MNLI and STS-B read them. Repeatable.",
)
@click.option("--task", help="Task of the texts: a name, or 'auto' where the bundle can infer it.")
@click.option(
    "--input",
    "file",
    type=PATH,
    metavar="FILE",
    help="In the place of TEXTS. FILE.txt: a text a line. FILE.csv: with the columns text, text_pair and task. "
    "FILE.jsonl: rows with text, text_pair and task. Of images: their paths, as image. FILE.npz: arrays by name, a row "
    "each, for a language model that reads sound.",
)
@click.option(
    "--escape/--no-escape",
    default=True,
    help="In the arguments, read \\n, \\t and \\\\ as a new line, a tab and a backslash; by default they are. "
    "Files and standard input are read as they are.",
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
@click.option(
    "--chat",
    "chats",
    is_flag=True,
    help="Language models: put the bundle's chat template around the texts. Without TEXTS, chat with the terminal: "
    "Ctrl-C ends an answer, Ctrl-D the chat. FILE.jsonl then holds messages and task; with --json, so does standard "
    "input.",
)
@click.option("--system", metavar="TEXT", help="With --chat: the system message.")
@click.option("--embed", is_flag=True, help="Print each text's embedding, a line of JSON, instead of its label.")
@click.option(
    "--pooling",
    metavar="NAME",
    help="--embed: mean, cls, max, ... of the tokens' outputs; by default the bundle's own embedding.",
)
@click.option("--dimensions", type=int, metavar="N", help="--embed: keep the first N numbers.")
@click.option("--normalize/--no-normalize", default=None, help="--embed: divide by the length; by default it is.")
@output_options
def run(
    bundle: Path,
    texts: tuple[str, ...],
    pairs: tuple[tuple[str, str], ...],
    task: str | None,
    file: Path | None,
    escape: bool,
    provider: str,
    batch_size: int,
    chats: bool,
    system: str | None,
    embed: bool,
    pooling: str | None,
    dimensions: int | None,
    normalize: bool | None,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Run texts through a bundle: from the arguments, pairs, a file, lines of standard input, or as they are typed.

    For a bundle that reads images, TEXTS are the paths of images. Classifiers print a line for each: the task, the
    label, its score, the text. Of a task without a head, such as
    base, it has the embedding, or the first of the features. Language models print the answer to a single text as it
    comes, and of several a line each; with --chat, to messages in the form of the bundle's chat template. With --embed,
    the embedding of each text is printed. --json has all of it: every label's score and the logits too. At the end,
    standard error has the provider and the kernels that ran.
    """
    from eptx.runtime import Session
    from eptx.runtime.requests.images.reader import reads_images

    if (bool(texts or pairs)) + (file is not None) > 1:
        raise click.UsageError("give TEXTS or --input, not both")
    if system is not None and not chats:
        raise click.UsageError("--system is for --chat")
    if chats and pairs:
        raise click.UsageError("--pair and --chat do not go together")
    given = {name: value for name, value in settings.items() if value not in (None, ())}
    form = {"pooling": pooling, "dimensions": dimensions, "normalize": normalize}
    form = {name: value for name, value in form.items() if value is not None}
    if form and not embed:
        option = "no-normalize" if normalize is False else next(iter(form))
        raise click.UsageError(f"--{option} is for --embed")
    session = Session(bundle, provider=provider)
    key = IMAGE if reads_images(session.manifest) else "text"
    if pairs and key == IMAGE:
        raise click.UsageError("--pair is for texts, and this bundle reads images")
    if escape and key != IMAGE:
        texts = tuple(map(unescaped, texts))
        pairs = tuple((unescaped(one), unescaped(other)) for one, other in pairs)
        system = None if system is None else unescaped(system)
        given |= {"stop": tuple(map(unescaped, given["stop"]))} if "stop" in given else {}
    if chats and embed:
        raise click.UsageError("--embed and --chat do not go together")
    asked = Given(texts, pairs, file, task, key)
    if chats:
        how = ChatOptions(task, system, batch_size, as_json, given)
        chat(session, texts, file, how)
    elif embed:
        _embed(session, asked, as_json, given, form)
    else:
        _answer(session, asked, batch_size, as_json, given)
    if not quiet:
        print_runs_on(session.info())


def _embed(session: Session, asked: Given, as_json: bool, given: dict[str, Any], form: dict[str, Any]) -> None:
    if given:
        raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} is for language models, and not for --embed")
    results = []
    for batch in batches(asked.rows(), 1 if asked.typed else _EMBEDDED, _kind):
        for result in answers.embed(session, batch, **form):
            if as_json:
                results.append(result)
            else:
                click.echo(json.dumps(result))
    if as_json:
        print_json(results)


def _answer(session: Session, asked: Given, batch_size: int, as_json: bool, given: dict[str, Any]) -> None:
    generates = session.manifest.generation is not None
    if given and not generates:
        option = "--" + next(iter(given)).replace("_", "-")
        raise click.UsageError(f"{option} is for language models, and this bundle does not generate text")
    if generates and len(asked.texts) == 1 and not asked.pairs and not as_json:
        answers.print_stream(session.stream(asked.texts[0], asked.task, **given))
        return
    line = Lines(session.manifest)
    if asked.file is not None and asked.file.suffix == ".npz":
        if not generates:
            raise click.UsageError("a file of arrays is for language models; use Session.run in Python")
        made = answers.generate_of_arrays(session, asked.file, asked.task, **given)
        if as_json:
            print_json(made)
        for result in () if as_json else made:
            click.echo(line(result))
        return
    answer = answers.generate if generates else answers.classify
    results = []
    for rows in batches(asked.rows(), 1 if asked.typed else batch_size, _kind):
        try:
            made = answer(session, rows, **given)
        except EptxError as error:
            if not asked.typed:
                raise
            click.echo(printable(f"error: {error}"), err=True)
            continue
        for result in made:
            results.append(result)
            if not as_json:
                click.echo(line(result))
    if as_json:
        print_json([answers.without_nan(result) for result in results])


def _kind(row: Row) -> tuple[bool, bool]:
    """Pairs and single texts do not share a batch."""
    return "text_pair" in row, row.get("task") is None
