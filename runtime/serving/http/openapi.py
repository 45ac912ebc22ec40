"""The server's description as OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eptx._version import __version__
from eptx.runtime.serving.protocol.tensors import DATATYPES

_STATUS = {
    400: "Not a request, or one that does not fit the bundle.",
    401: "No token that the server knows.",
    404: "No such model or version.",
    408: "The request came too slowly.",
    413: "The body is too large.",
    415: "Not JSON or binary tensors.",
    429: "The queue is full.",
    431: "The headers are too large.",
    500: "Internal error.",
    501: "A package is not installed.",
    503: "The server is not ready, is ending, or out of memory.",
    504: "The deadline passed.",
}
_OBJECT = {"type": "object"}
_TEXT = {"type": "string"}
_TIMEOUT = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999_999},
}
_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "datatype": {"enum": list(DATATYPES)},
        "shape": {"type": "array", "maxItems": 8, "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}},
        "data": {"type": "array"},
        "parameters": _OBJECT,
    },
}
_INFER = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": _TEXT,
        "inputs": {"type": "array", "minItems": 1, "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string", "minLength": 1}, "parameters": _OBJECT},
            },
        },
        "parameters": _OBJECT,
    },
}
_INFERRED = {
    "type": "object",
    "required": ["model_name", "outputs"],
    "properties": {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "id": _TEXT,
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_PROMPT = {
    "type": "object",
    "required": ["text_input"],
    "properties": {"id": _TEXT, "text_input": _TEXT, "parameters": _OBJECT},
}
_WRITTEN = {
    "type": "object",
    "required": ["model_name", "text_output"],
    "properties": {"model_name": _TEXT, "model_version": _TEXT, "text_output": _TEXT, "id": _TEXT, "details": _OBJECT},
}
_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1 - 2**31, "maximum": 2**31 - 1}}
_EMBED = {
    "type": "object",
    "required": ["model", "input"],
    "properties": {
        "model": _TEXT,
        "input": {
            "anyOf": [
                _TEXT,
                {"type": "array", "minItems": 1, "maxItems": 2048, "items": _TEXT},
                _IDS,
                {"type": "array", "minItems": 1, "maxItems": 2048, "items": _IDS},
            ]
        },
        "encoding_format": {"enum": ["float", "base64"]},
        "dimensions": {"type": ["integer", "null"], "minimum": 1},
        "user": {},
    },
    "additionalProperties": False,
}
_EMBEDDED = {
    "type": "object",
    "required": ["object", "data", "model", "usage"],
    "properties": {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["object", "index", "embedding"],
                "properties": {"embedding": {"anyOf": [_TEXT, {"type": "array", "items": {"type": "number"}}]}},
            },
        },
        "model": _TEXT,
        "usage": _OBJECT,
    },
}
_FLAG = {"type": ["boolean", "null"]}
_ASKED = {
    "model": {"type": "string", "minLength": 1},
    "stream": _FLAG,
    "stream_options": {"type": ["object", "null"], "properties": {"include_usage": _FLAG}},
}
_MESSAGE = {"type": "object", "required": ["role"], "properties": {"role": _TEXT}}
_CHAT = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        **_ASKED,
        "messages": {"type": "array", "minItems": 1, "items": _MESSAGE},
        "tools": {"type": ["array", "null"]},
        "logprobs": _FLAG,
    },
}
_PROMPTED = {
    "type": "object",
    "required": ["model", "prompt"],
    "properties": {**_ASKED, "prompt": {"type": ["string", "array"]}},
}
_LIST = {"type": "object", "required": ["object", "data"], "properties": {"object": _TEXT, "data": {"type": "array"}}}
_MODEL = {"type": "object", "required": ["id", "object"], "properties": {"id": _TEXT, "object": _TEXT}}
_COMPLETION = {
    "type": "object",
    "required": ["id", "object", "model", "choices", "usage"],
    "properties": {"id": _TEXT, "object": _TEXT, "model": _TEXT, "choices": {"type": "array"}, "usage": _OBJECT},
}


def describe(names: Sequence[str], *, tokens: bool) -> dict[str, Any]:
    """The description of a server that serves models of these names, and may ask for tokens."""
    name, version = _part("name", names), _part("version", ["1"])
    paths: dict[str, Any] = {
        "/v2": _get("The server.", _OBJECT),
        "/": _get("A page to try the models.", None, media="text/html"),
        "/docs": _get("A page of this description.", None, media="text/html"),
        "/health": _get("Whether all models answer.", _OBJECT, 503),
        "/v2/health/live": _get("Whether the process answers.", _OBJECT),
        "/v2/health/ready": _get("Whether all models answer.", _OBJECT, 503),
        "/metrics": _get("For Prometheus.", None),
        "/openapi.json": _get("This description.", _OBJECT),
        "/v1/embeddings": _post("Embeddings as OpenAI's.", _EMBEDDED, _EMBED, _TIMEOUT, openai=True),
        "/v2/repository/index": _post("The models.", {"type": "array"}, _OBJECT, optional=True),
        "/v2/repository/models/{name}/load": _post("Loads a bundle again.", _OBJECT, _OBJECT, name, optional=True),
    }
    asked = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    paths |= {
        "/v1/models": _get("The models: each task of a bundle.", _LIST, 503, openai=True),
        "/v1/models/{model}": _get("A model.", _MODEL, 404, 503, parameters=(asked,), openai=True),
        "/v1/chat/completions": _post("Answers a chat.", _COMPLETION, _CHAT, _TIMEOUT, openai=True),
        "/v1/completions": _post("Answers a prompt.", _COMPLETION, _PROMPTED, _TIMEOUT, openai=True),
    }
    model = "/v2/models/{name}"
    for path, parameters in ((model, (name,)), (model + "/versions/{version}", (name, version))):
        posted = (*parameters, _TIMEOUT)
        paths |= {
            path: _get("A model's inputs and outputs.", _OBJECT, 404, 503, parameters=parameters),
            f"{path}/ready": _get("Whether a model answers.", _OBJECT, 404, 503, parameters=parameters),
            f"{path}/infer": _post("Answers tensors, texts or images.", _INFERRED, _INFER, *posted, binary=True),
            f"{path}/generate": _post("Answers a prompt.", _WRITTEN, _PROMPT, *posted),
            f"{path}/generate_stream": _post("Answers a prompt in events.", None, _PROMPT, *posted),
        }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "eptx serve", "version": __version__},
        "paths": paths,
    }
    if tokens:
        described["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        described["security"] = [{"token": []}]
    return described


def _part(name: str, values: Sequence[str]) -> dict[str, Any]:
    """A part of a path."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": list(values)}}


def _get(
    summary: str,
    answer: Any,
    *codes: int,
    parameters: tuple[Any, ...] = (),
    openai: bool = False,
    media: str = "text/plain",
) -> dict[str, Any]:
    content = {media: {}} if answer is None else _json(answer)
    responses = _responses(content, 401, 431, *codes, openai=openai)
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _post(
    summary: str,
    answer: Any,
    body: Any,
    *parameters: Any,
    optional: bool = False,
    binary: bool = False,
    openai: bool = False,
) -> dict[str, Any]:
    content = {"text/event-stream": {}} if answer is None else _json(answer)
    if binary:
        content["application/octet-stream"] = {}
    if openai:  # where ``stream`` asks for them
        content["text/event-stream"] = {}
    return {
        "post": {
            "summary": summary,
            "parameters": list(parameters),
            "requestBody": {"required": not optional, "content": _json(body)},
            "responses": _responses(content, *_STATUS, openai=openai),
        }
    }


def _responses(content: Any, *codes: int, openai: bool) -> dict[str, Any]:
    refused = {str(code): {"description": _STATUS[code], "content": _json(_error(code, openai))} for code in codes}
    return {"200": {"description": "Done.", "content": content}, **refused}


def _error(code: int, openai: bool) -> dict[str, Any]:
    """An error: an object for OpenAI's clients, one line for others. What the connection refuses is a line for all."""
    if code == 503:
        return _OBJECT  # of a health check, which says so itself
    error = {"anyOf": [_OBJECT, _TEXT]} if openai and code in (408, 431) else _OBJECT if openai else _TEXT
    return {"type": "object", "required": ["error"], "properties": {"error": error}}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
