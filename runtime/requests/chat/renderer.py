"""The process that renders a bundle's chat template."""

from __future__ import annotations

import importlib.util
import json
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eptx._one_line import one_line
from eptx.errors import BundleError, LimitError, NotSupportedError, RequestError
from eptx.files.strict_json import parse_json

_PROGRAM = Path(__file__).with_name("program.py")
_LENGTH = struct.Struct("<I")  # as in the program, which only its own process imports: it needs jinja2
#: Bytes of an answer: the longest prompt, as JSON may write it.
_LONGEST = 128 << 20


class Renderer:
    """Renders chat templates in a process of its own; may be used from many threads.

    A template is code that came with the bundle. The process has two seconds of a processor and one gigabyte for a
    prompt; a template that takes more ends it, and the next prompt starts another one. It is started by the first
    prompt, and ends with the renderer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], object] = lambda: None

    def render(self, template: str, variables: dict[str, Any]) -> str:
        """The prompt.

        Args:
            template: in Jinja.
            variables: what it may read, of JSON's types.

        Raises:
            RequestError: the template refuses these messages, or fails on them.
            BundleError: it is no template, or reaches for what the sandbox does not give.
            LimitError: it takes too much time or memory, or its prompt is too long.
            NotSupportedError: the ``jinja2`` package is not installed.
        """
        try:
            request = json.dumps({"template": template, "variables": variables}).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"the messages hold something that is no JSON: {one_line(error)}") from None
        with self._lock:
            try:
                answer = self._ask(request)
            except BaseException:  # an interrupt, too: the next prompt must not get this one's answer
                self._process = None
                self._end()
                raise
        if "text" in answer:
            return str(answer["text"])
        said = one_line(ValueError(answer["error"]))
        if answer["kind"] == "template":
            raise BundleError(f"the bundle's chat template cannot be used: {said}")
        if answer["kind"] == "limit":
            raise LimitError(f"the bundle's chat template takes too much for these messages: {said}")
        raise RequestError(f"the bundle's chat template does not take these messages: {said}")

    def _ask(self, request: bytes) -> dict[str, Any]:
        if self._process is None:
            self._process = _start()
            self._end = weakref.finalize(self, _kill, self._process)
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(_LENGTH.pack(len(request)) + request)
            process.stdin.flush()
            head = process.stdout.read(_LENGTH.size)
            size = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
            data = process.stdout.read(size) if size <= _LONGEST else b""
        except BrokenPipeError:
            data = b""
        if not data or len(data) != size:
            raise _ended(process)
        answer = parse_json(data, what="the answer of the chat template", error=BundleError)
        assert isinstance(answer, dict)
        return answer


def _start() -> subprocess.Popen[bytes]:
    if importlib.util.find_spec("jinja2") is None:
        raise NotSupportedError("chat templates need jinja2; pip install 'eptx[generate]'")
    try:
        return subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for the program that chats
        )
    except OSError as error:
        raise LimitError(f"the process for chat templates does not start: {error.strerror}") from None


def _ended(process: subprocess.Popen[bytes]) -> Exception:
    """What the end of the process says."""
    _kill(process)
    if process.returncode == -signal.SIGXCPU:
        return LimitError("the bundle's chat template takes too much for these messages: it does not end")
    return LimitError(f"the process for the bundle's chat template ended with {process.returncode}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue
    process.wait()
