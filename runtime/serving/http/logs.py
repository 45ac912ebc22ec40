"""Logs on standard error: one JSON object a line, and on a terminal a line to read."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """Writes a record's time, level, event and ``fields``, and the kind and text of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage().strip(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ForPeople(logging.Formatter):
    """Writes the time of day, a level that needs attention, and what the record has to say to people (``said``), or
    else the event and the fields that have a value."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; a traceback follows in lines of its own."""
        said = getattr(record, "said", None)
        words = [said] if said else [record.getMessage().strip(), *_told(getattr(record, "fields", {}))]
        level = [] if record.levelno <= logging.INFO else [f"{record.levelname.lower()}:"]
        line = f"{datetime.fromtimestamp(record.created):%H:%M:%S} {_printable(' '.join([*level, *words]))}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _told(fields: Mapping[str, Any]) -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield f"{name} ({', '.join(_told(value))})"
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield f"{name} {text}"


def _printable(text: str) -> str:
    """What a client or a path may hold must not command the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


#: The loggers of other libraries, and their levels. (OpenTelemetry's warnings would repeat a client's headers.)
_OTHERS = (("uvicorn.error", "ERROR"), ("asyncio", "ERROR"), ("opentelemetry", "ERROR"))


def start_logging(level: str) -> None:
    """Writes the server's log, and the errors of other libraries, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ForPeople() if sys.stderr.isatty() else JsonLines())
    for name, least in (("eptx.serving", level.upper()), ("eptx.runtime", level.upper()), *_OTHERS):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(least)
