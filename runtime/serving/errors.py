"""Why a request is refused, as HTTP says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from eptx.errors import EptxError, LimitError, NotSupportedError, RequestError, TooLongError

#: Every model's version, as the protocol has it.
VERSION = "1"

#: What OpenAI's clients call a model that is not there.
NO_MODEL = "model_not_found"

_T = TypeVar("_T")
_STATUS = {RequestError: 400, LimitError: 503, NotSupportedError: 501, EptxError: 500}


class Refused(Exception):
    """A request that is not answered, as HTTP says it.

    Attributes:
        status: the HTTP status.
        message: one line for the client.
        headers: to send with it.
        code: what OpenAI's clients call it, where they have a name for it.
        param: the field of the request that is wrong, where one is.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.code = code
        self.param = param

    def __reduce__(self) -> tuple[type[Refused], tuple[object, ...], dict[str, object]]:
        """A refusal may go from one process to another."""
        return Refused, (self.status, self.message, self.headers), {"code": self.code, "param": self.param}


class Overdue(Refused):
    """The request's deadline passed."""

    def __init__(self) -> None:
        super().__init__(504, "the deadline passed before the answer was there; ask for less, or allow more time")


def refusal(error: BaseException) -> Refused:
    """The refusal for an error: with the message of eptx's own errors, and without that of others."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, EptxError):
        status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
        code = "context_length_exceeded" if isinstance(error, TooLongError) else None
        return Refused(status, str(error), {"Retry-After": "1"} if status == 503 else None, code=code)
    return Refused(500, f"internal error: {type(error).__name__}; the server's log has more")


def find_model(models: Mapping[str, _T], name: str, version: str | None) -> _T:
    """The model of that name and version.

    Raises:
        Refused: 404, there is none.
    """
    if name in models and version in (None, VERSION):
        return models[name]
    which = f"model {name[:60]!r}" + (f" of version {version[:20]!r}" if version is not None else "")
    raise Refused(404, f"no {which}; there are {', '.join(models)}, of version {VERSION}", code=NO_MODEL)
