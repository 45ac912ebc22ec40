"""Logs: one JSON object a line on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


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


#: The loggers of other libraries, and their levels. (OpenTelemetry's warnings would repeat a client's headers.)
_OTHERS = (("uvicorn.error", "ERROR"), ("asyncio", "ERROR"), ("opentelemetry", "ERROR"))


def start_logging(level: str) -> None:
    """Writes the server's log, and the errors of other libraries, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, least in (("eptx.serving", level.upper()), ("eptx.runtime", level.upper()), *_OTHERS):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(least)
