"""Why a request is refused, as HTTP says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from eptx.errors import EptxError, LimitError, NotSupportedError, RequestError

#: Every model's version, as the protocol has it.
VERSION = "1"

_T = TypeVar("_T")


class Refused(Exception):
    """A request that is not answered, as HTTP says it.

    Attributes:
        status: the HTTP status.
        message: one line for the client.
        headers: to send with it.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


class Overdue(Refused):
    """The request's deadline passed."""

    def __init__(self) -> None:
        super().__init__(504, "the deadline passed before the answer was there; ask for less, or allow more time")


def refusal(error: BaseException) -> Refused:
    """What the client is told of an error: eptx's own lines, and nothing of one that eptx does not know."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, RequestError):
        return Refused(400, str(error))
    if isinstance(error, LimitError):
        return Refused(503, str(error), {"Retry-After": "1"})
    if isinstance(error, NotSupportedError):
        return Refused(501, str(error))
    if isinstance(error, EptxError):
        return Refused(500, str(error))
    return Refused(500, f"internal error: {type(error).__name__}; the server's log has more")


def find_model(models: Mapping[str, _T], name: str, version: str | None) -> _T:
    """The model of that name and version.

    Raises:
        Refused: 404, there is none.
    """
    if name in models and version in (None, VERSION):
        return models[name]
    which = f"model {name[:60]!r}" + (f" of version {version[:20]!r}" if version is not None else "")
    raise Refused(404, f"no {which}; there are {', '.join(models)}, of version {VERSION}")
