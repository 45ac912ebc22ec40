"""The protocol's generate extension: the body of a request for a language model's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from eptx.errors import RequestError
from eptx.files.strict_json import parse_json
from eptx.runtime.generation.settings import SearchOptions
from eptx.runtime.serving.protocol.parameters import read_flag, read_timeout

#: Parameters of a request, and the search options that they are.
_OPTIONS = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "add_special_tokens": "add_special_tokens",
}
_OTHER = ("task", "timeout", "stream")


@dataclass(frozen=True)
class Prompt:
    """One request for an answer.

    Attributes:
        prompt: a text; or, for an encoder that reads no tokens, one row of what it reads instead, by name.
        task: its task, or None for the bundle's default.
        options: of the search.
        id: what the client calls it, or None.
        timeout: microseconds that the client allows, or None.
    """

    prompt: str | Mapping[str, Any]
    task: str | None
    options: SearchOptions
    id: str | None
    timeout: int | None


def parse_prompt(body: bytes) -> Prompt:
    """Reads ``{"text_input": ..., "parameters": {...}}``, or ``{"inputs": {"input_features": [...]}, ...}``.

    Raises:
        RequestError: the body is something else, or has a parameter that does not exist.
    """
    request = parse_json(body, what="the request", error=RequestError)
    text, arrays = (request.get("text_input"), request.get("inputs")) if isinstance(request, dict) else (None, None)
    if not isinstance(text, str) and not isinstance(arrays, dict):
        raise RequestError("the request must be a JSON object with a text_input, or with inputs by name")
    if text is not None and arrays is not None:
        raise RequestError("the request has a text_input and inputs; give one of them")
    parameters = {} if request.get("parameters") is None else request["parameters"]
    if not isinstance(parameters, dict):
        raise RequestError("parameters must be a JSON object")
    for name in parameters:
        if name not in _OPTIONS and name not in _OTHER:
            raise RequestError(f"no parameter {name[:60]!r}; there are {', '.join((*_OPTIONS, *_OTHER))}")
    for what, value in (("id", request.get("id")), ("the parameter task", parameters.get("task"))):
        if value is not None and not isinstance(value, str):
            raise RequestError(f"{what} must be a text, it is {type(value).__name__}")
    read_flag(parameters, "stream", "the request")  # it is the path that says so
    options = {_OPTIONS[n]: v for n, v in parameters.items() if n in _OPTIONS and v is not None}
    return Prompt(
        {name: [row] for name, row in arrays.items()} if isinstance(arrays, dict) else str(text),
        parameters.get("task"),
        cast(SearchOptions, options),  # the session checks the values
        request.get("id"),
        read_timeout(parameters),
    )
