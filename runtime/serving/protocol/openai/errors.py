"""Errors as OpenAI's clients read them."""

from __future__ import annotations

from typing import Any

from eptx.runtime.serving.errors import Refused

#: HTTP statuses whose errors clients know by a type or a code of their own.
_TYPES = {429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


def error_object(refused: Refused) -> dict[str, Any]:
    """A refusal as the object that OpenAI's answers have."""
    kind = _TYPES.get(refused.status, "invalid_request_error" if refused.status < 500 else "server_error")
    code = refused.code or _CODES.get(refused.status)
    return {"error": {"message": refused.message, "type": kind, "param": refused.param, "code": code}}
