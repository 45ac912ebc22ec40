"""Renders chat templates, in a process of its own that `Renderer` starts, whose time and memory are bounded.

A template is code of the bundle's author. Jinja's sandbox keeps it from Python, but not from loops and texts
without end: the system does that here. This file needs no other module of eptx.

Messages on standard input and output are JSON behind their length in four bytes. A request has ``template`` and
``variables``; an answer has ``text``, or ``error`` and in ``kind`` whose fault it is.
"""

from __future__ import annotations

import json
import math
import resource
import struct
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

LENGTH = struct.Struct("<I")
#: Characters of a prompt. The longest contexts have a few million.
LONGEST = 8 << 20
#: Seconds of a processor for one prompt, and bytes of memory for the process.
SECONDS, MEMORY = 2, 1 << 30


class Generation(Extension):
    """``{% generation %}``: marks what the model wrote, for training; a prompt is what stands inside."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements up to ``{% endgeneration %}``, in a scope of their own as in a call."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return [nodes.Scope(body, lineno=line)]


class PlainNamespace(Namespace):
    """``namespace(...)``, which keeps no name that begins with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # a template may name one of them self
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        """Sets an attribute."""
        _check_name(name)
        super().__setitem__(name, value)


class PlainDict:
    """``dict(...)`` without the attributes of Python's class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """A dictionary."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """A dictionary of keys with one value."""
        return dict.fromkeys(*args)


def environment() -> ImmutableSandboxedEnvironment:
    """What chat templates are written for: the names, filters and tags that transformers gives them."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _raise_exception
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    made.globals["dict"] = PlainDict()
    made.globals["namespace"] = PlainNamespace
    return made


def render(template: str, variables: dict[str, Any]) -> dict[str, str]:
    """The answer to one request."""
    try:
        text = _compiled(template).render(**variables)
    except (SecurityError, TemplateSyntaxError) as error:
        return {"kind": "template", "error": str(error)}
    except TemplateError as error:  # of raise_exception, too
        return {"kind": "messages", "error": str(error)}
    except (MemoryError, RecursionError) as error:
        return {"kind": "limit", "error": type(error).__name__}
    except Exception as error:  # whatever a template does to messages that it was not made for
        return {"kind": "messages", "error": f"{type(error).__name__}: {error}"}
    if len(text) > LONGEST:
        return {"kind": "limit", "error": f"more than {LONGEST} characters"}
    return {"text": text}


@lru_cache(maxsize=4)
def _compiled(template: str) -> Template:
    return environment().from_string(template)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Unlike Jinja's own filter, it leaves ``<`` and ``'`` as they are."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message))


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace keeps no name that begins with an underscore: {name[:40]!r}")


def read(stream: BinaryIO) -> Any:
    """The next message; None at the end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return json.loads(stream.read(LENGTH.unpack(head)[0]))  # noqa: TID251  it is eptx that wrote it


def write(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Sends a message."""
    data = json.dumps(message).encode()
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def _bound(kind: int, most: int) -> None:
    """Sets a limit of the process, within what it may set."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    """Answers requests until standard input ends."""
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_AS, MEMORY)
    while (request := read(sys.stdin.buffer)) is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        # beyond it, the system ends the process
        _bound(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + SECONDS)
        write(sys.stdout.buffer, render(request["template"], request["variables"]))


if __name__ == "__main__":
    main()
