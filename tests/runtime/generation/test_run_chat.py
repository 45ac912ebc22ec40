"""``eptx run --chat``: chats from arguments, files and scripts, and with who sits at a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from eptx import Session
from eptx.cli.parts.common import printable
from tests.malformed.scene import Cli
from tests.support.chat import write_chat_bundle

TASKS = ("kind", "rude")
SYSTEM, ASKED = {"role": "system", "content": "Be short."}, {"role": "user", "content": "Is it raining?"}
#: A greedy answer that goes on for long: tokens that the terminal's program may make, and that a test looks at.
LONG, LOOKED_AT = 32000, 3000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("chat")
    return write_chat_bundle(parent / "b", tasks=TASKS, max_position_embeddings=32768).path


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return Session(folder)


def test_a_text_is_the_users_message(folder: Path, session: Session, cli: Cli) -> None:
    options = ("--task", "rude", "--max-new-tokens", "20")
    wanted = session.chat([SYSTEM, ASKED], "rude", max_new_tokens=20).texts[0]
    assert wanted != session.chat([ASKED], "rude", max_new_tokens=20).texts[0]
    shown = cli("run", folder, "--chat", "--system", "Be short.", "Is it raining?", *options, "--json")
    assert json.loads(shown.out)[0]["answer"] == wanted
    plain = cli("run", folder, "--chat", "--system", "Be short.", "Is it raining?", *options)
    assert (plain.code, plain.err.count("\n"), plain.out[-1]) == (0, 1, "\n")


def test_several_texts_are_chats_of_their_own(folder: Path, session: Session, cli: Cli) -> None:
    made = session.chat([[ASKED], [{"role": "user", "content": "a"}]], "kind", max_new_tokens=9)
    result = cli("run", folder, "--chat", "Is it raining?", "a", "--task", "kind", "--max-new-tokens", "9")
    assert [line.split("\t")[0] for line in result.out.splitlines()] == ["kind", "kind"]
    assert [line.split("\t")[-1] for line in result.out.splitlines()] == ["Is it raining?", "a"]
    as_json = cli("run", folder, "--chat", "Is it raining?", "a", "--task", "kind", "--max-new-tokens", "9", "--json")
    assert [row["answer"] for row in json.loads(as_json.out)] == list(made.texts)


@pytest.mark.parametrize("of_file", [True, False])
def test_chats_of_a_file_and_of_standard_input(
    folder: Path, session: Session, tmp_path: Path, of_file: bool, cli: Cli
) -> None:
    chats = ([ASKED], [SYSTEM, ASKED])
    rows: list[Any] = [{"messages": messages, "task": task} for messages in chats for task in TASKS]
    rows.append({"messages": [ASKED], "task": "base", "tools": [{"name": "f"}]})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    options = ["--json", "--batch-size", "3", "--max-new-tokens", "9"]
    if of_file:
        (tmp_path / "chats.jsonl").write_text(lines)
        out = cli("run", folder, "--chat", "--input", tmp_path / "chats.jsonl", *options).out
    else:
        command = [sys.executable, "-m", "eptx", "run", folder, "--chat", *options]
        out = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
    made = json.loads(out)
    wanted = [session.chat(row["messages"], row["task"], max_new_tokens=9, tools=row.get("tools")) for row in rows]
    assert [row["answer"] for row in made] == [one.texts[0] for one in wanted]
    assert [row["tokens"] for row in made] == [len(one.token_ids[0]) for one in wanted]
    assert [(row["messages"], row["task"]) for row in made] == [(row["messages"], row["task"]) for row in rows]


def test_lines_of_a_script_are_turns(folder: Path, session: Session) -> None:
    command = [sys.executable, "-m", "eptx", "run", folder, "--chat", "--task", "kind", "--max-new-tokens", "9"]
    done = subprocess.run([*command, "--quiet"], input="Is it raining?\n\nAnd now?\n", capture_output=True, text=True)
    first = session.chat([ASKED], "kind", max_new_tokens=9).texts[0]
    chat = [ASKED, {"role": "assistant", "content": first}, {"role": "user", "content": "And now?"}]
    second = session.chat(chat, "kind", max_new_tokens=9).texts[0]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "".join(f"{printable(text)}\n" for text in (first, second))


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("--system", "x", "a"), 2, "--system is for --chat"),
        (("--chat", "a", "--task", "polite"), 3, "no task 'polite'"),
        (("--chat", "--input", "absent.jsonl"), 3, "absent.jsonl"),
    ],
)
def test_what_is_refused(folder: Path, cli: Cli, arguments: tuple[str, ...], code: int, line: str) -> None:
    result = cli("run", folder, *arguments)
    assert result.code == code
    assert line in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("row", ["{}", "[]", '{"messages": "hello"}', '{"messages": [], "task": 3}'])
def test_a_file_that_holds_no_chat(folder: Path, cli: Cli, tmp_path: Path, row: str) -> None:
    (tmp_path / "chats.jsonl").write_text(f"\n{row}\n")
    result = cli("run", folder, "--chat", "--input", tmp_path / "chats.jsonl")
    assert (result.code, result.err.startswith("error: chats.jsonl, line 2: ")) == (3, True)


class Terminal:
    """``eptx run --chat`` at a terminal of its own."""

    def __init__(self, *command: str | int | Path) -> None:
        self.pid, self._screen = pty.fork()
        if not self.pid:
            # a shell's background has it ignored, which children take over
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execv(sys.executable, [sys.executable, "-m", "eptx", "run", *map(str, command)])
        # a Ctrl-C would throw away what is shown and not read yet, the prompt after it too
        attributes = termios.tcgetattr(self._screen)
        attributes[3] |= termios.NOFLSH
        termios.tcsetattr(self._screen, termios.TCSANOW, attributes)
        self._shown = b""

    def type(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def until(self, text: bytes, more: int = 0) -> bytes:
        """What is shown until a text and some bytes more."""
        while (at := self._shown.find(text)) < 0 or len(self._shown) < at + len(text) + more:
            block = self._read()
            assert block, self._shown
            self._shown += block
        end = at + len(text) + more
        shown, self._shown = self._shown[:end], self._shown[end:]
        return shown

    def is_showing(self) -> bool:
        """Whether something new is shown within a second."""
        return bool(select.select([self._screen], [], [], 1)[0])

    def code(self) -> int:
        while self._read():
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._screen)  # before, it would end the program
        return code

    def _read(self) -> bytes:
        """What is shown next; nothing when the program has ended, or is silent for a minute."""
        try:
            return os.read(self._screen, 1 << 16) if select.select([self._screen], [], [], 60)[0] else b""
        except OSError:
            return b""


def chat_at(terminal: Terminal, session: Session, text: str) -> None:
    """Asks, and ends the answer by Ctrl-C when it has begun: long before it would end by itself."""
    chat = [{"role": "user", "content": text}]
    whole = session.chat(chat, "kind", max_new_tokens=LOOKED_AT)
    assert whole.finish_reasons == ("length",)
    terminal.type(f"{text}\r".encode())
    assert b"error: " not in terminal.until(f"{text}\r\n".encode(), more=20)
    terminal.type(b"\x03")
    assert len(terminal.until(b"\r\n> ")) < 2 * len(printable(whole.texts[0]))


def test_ctrl_c_ends_an_answer_and_ctrl_d_the_chat(folder: Path, session: Session) -> None:
    terminal = Terminal(folder, "--chat", "--task", "kind", "--max-new-tokens", LONG)
    terminal.until(b"> ")
    chat_at(terminal, session, "Is it raining?")
    while not terminal.is_showing():  # Python's input() misses a Ctrl-C between its prompt and its wait for keys
        terminal.type(b"\x03")
    terminal.until(b"Ctrl-D ends\r\n> ")
    terminal.type(b"\x04")
    terminal.until(b"provider cpu")
    assert terminal.code() == 0


def test_a_message_that_is_refused_is_forgotten(folder: Path, session: Session) -> None:
    terminal = Terminal(folder, "--chat", "--task", "kind", "--max-new-tokens", LONG)
    terminal.until(b"> ")
    terminal.type(b"x" * 800 + b"\r")
    terminal.until(b"error: ")
    terminal.until(b"> ")
    chat_at(terminal, session, "Hm")
    terminal.type(b"\x04")
    terminal.until(b"provider cpu")
    assert terminal.code() == 0
