"""Parameters that several kinds of requests have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eptx._one_line import shown
from eptx.errors import RequestError


def read_flag(parameters: Mapping[str, Any], name: str, what: str) -> bool | None:
    """A parameter that is true or false; None if it is missing.

    Raises:
        RequestError: it is something else.
    """
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{what}: the parameter {name} must be true or false, it is {shown(value)}")
    return value


def read_timeout(parameters: Mapping[str, Any]) -> int | None:
    """Microseconds that a client allows for its answer; None if it says nothing, or 0.

    Raises:
        RequestError: the parameter ``timeout`` is something else.
    """
    timeout = parameters.get("timeout")
    if timeout is not None and (type(timeout) is not int or not 0 <= timeout < 2**63):
        raise RequestError(f"the parameter timeout must be a number of microseconds, it is {shown(timeout)}")
    return timeout or None
