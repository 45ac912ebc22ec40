"""``eptx run --chat``: chats from the arguments, from a file, or with who sits at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eptx.cli.parts import answers
from eptx.cli.parts.common import print_json, printable
from eptx.cli.parts.lines import Lines
from eptx.cli.parts.rows import batches, lines_of_stdin, typed_lines
from eptx.errors import EptxError, RequestError
from eptx.files.jsonl import read_chats
from eptx.files.safe_files import open_regular

if TYPE_CHECKING:
    from eptx.runtime import Session

#: What a row of a file may say of its chat, beside messages and task.
_OF_TEMPLATE = ("tools", "variables")

Chat = dict[str, Any]


@dataclass(frozen=True)
class ChatOptions:
    """How chats are answered.

    Attributes:
        task: of all chats; None: as a file says, or the bundle's default.
        system: the system message of all chats but a file's.
        batch_size: chats that are answered together.
        as_json: whether to print JSON at the end, in the place of texts as they come.
        settings: of the search.
    """

    task: str | None
    system: str | None
    batch_size: int
    as_json: bool
    settings: Mapping[str, Any]


def chat(session: Session, texts: Sequence[str], file: Path | None, how: ChatOptions) -> None:
    """Answers chats; where there are neither texts nor a file, standard input is the user's side of one chat.

    Args:
        session: that answers.
        texts: each the user's message of a chat of its own.
        file: a jsonl file of chats; for JSON and with neither, standard input is one.
        how: they are answered.
    """
    first = [{"role": "system", "content": how.system}] if how.system is not None else []
    if file is None and not texts and not how.as_json:
        _converse(session, first, how)
        return
    chats = _given(texts, file, first, how.task)
    if len(texts) == 1 and not how.as_json:
        answers.print_stream(session.stream_chat(next(chats)["messages"], how.task, **how.settings))
        return
    made, line = [], Lines(session.manifest)
    for batch in batches(chats, how.batch_size, _kind):
        for result in _answer(session, batch, how):
            made.append(result)
            if not how.as_json:
                click.echo(line({**result, "text": _last(result["messages"])}))
    if how.as_json:
        print_json(made)


def _given(texts: Sequence[str], file: Path | None, first: list[Chat], task: str | None) -> Iterator[Chat]:
    if texts:
        yield from ({"messages": [*first, _user(text)], "task": task} for text in texts)
        return
    name = file.name if file is not None else "standard input"
    opened = nullcontext(sys.stdin.buffer) if file is None else open_regular(file, error=RequestError)
    with opened as lines:
        for row in read_chats(lines, name, error=RequestError):
            yield row if task is None else {**row, "task": task}


def _answer(session: Session, chats: list[Chat], how: ChatOptions) -> Iterator[Chat]:
    tasks = None if chats[0].get("task") is None else [row["task"] for row in chats]
    template = {name: chats[0][name] for name in _OF_TEMPLATE if name in chats[0]}
    made = session.chat([row["messages"] for row in chats], tasks, **template, **how.settings)
    for row, *answer in zip(chats, made.tasks, made.texts, made.token_ids, made.finish_reasons, strict=True):
        said, text, ids, reason = answer
        yield {"messages": row["messages"], "task": said, "answer": text, "tokens": len(ids), "finish_reason": reason}


def _kind(row: Chat) -> Any:
    """Chats of equal kinds may share a batch."""
    return [row.get(name) for name in _OF_TEMPLATE], row.get("task") is None


def _last(messages: Sequence[Any]) -> str:
    content = messages[-1].get("content") if messages and isinstance(messages[-1], dict) else None
    return content if isinstance(content, str) else ""


def _user(text: str) -> Chat:
    return {"role": "user", "content": text}


def _converse(session: Session, first: list[Chat], how: ChatOptions) -> None:
    """One chat with standard input, a line a message. Ctrl-C ends an answer, and Ctrl-D the chat.

    What came of an answer that was ended stays in the chat. At a terminal, a message that cannot be answered is
    refused and forgotten; of a script it is an error.
    """
    messages, terminal = list(first), sys.stdin.isatty()
    for text in _turns(terminal):
        messages.append(_user(text))
        try:
            answer = _stream(session, messages, how)
        except EptxError as error:
            if not terminal:
                raise
            click.echo(printable(f"error: {error}"), err=True)
            messages.pop()
            continue
        messages.append({"role": "assistant", "content": answer})


def _stream(session: Session, messages: Sequence[Chat], how: ChatOptions) -> str:
    """Prints an answer as it comes; what came of it until its end, or until Ctrl-C."""
    came: list[str] = []

    def pieces(stream: Iterable[Any]) -> Iterator[Any]:
        for piece in stream:
            came.append(piece.text)
            yield piece

    try:
        with closing(session.stream_chat(messages, how.task, **how.settings)) as stream:
            answers.print_stream(pieces(stream))
    except KeyboardInterrupt:
        click.echo()
    return "".join(came)


def _turns(terminal: bool) -> Iterator[str]:
    """The user's messages; empty lines are none."""
    return typed_lines() if terminal else filter(str.strip, lines_of_stdin())
