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


def describe(names: Sequence[str], *, tokens: bool) -> dict[str, Any]:
    """The description of a server that serves models of these names, and may ask for tokens."""
    name, version = _part("name", names), _part("version", ["1"])
    paths: dict[str, Any] = {
        "/v2": _get("The server.", _OBJECT),
        "/v2/health/live": _get("Whether the process answers.", _OBJECT),
        "/v2/health/ready": _get("Whether all models answer.", _OBJECT, 503),
        "/metrics": _get("For Prometheus.", None),
        "/openapi.json": _get("This description.", _OBJECT),
        "/v2/repository/index": _post("The models.", {"type": "array"}, _OBJECT, optional=True),
        "/v2/repository/models/{name}/load": _post("Loads a bundle again.", _OBJECT, _OBJECT, name, optional=True),
    }
    model = "/v2/models/{name}"
    for path, parameters in ((model, (name,)), (model + "/versions/{version}", (name, version))):
        posted = (*parameters, _TIMEOUT)
        paths |= {
            path: _get("A model's inputs and outputs.", _OBJECT, 404, 503, parameters=parameters),
            f"{path}/ready": _get("Whether a model answers.", _OBJECT, 404, 503, parameters=parameters),
            f"{path}/infer": _post("Answers tensors or texts.", _INFERRED, _INFER, *posted, binary=True),
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


def _get(summary: str, answer: Any, *codes: int, parameters: tuple[Any, ...] = ()) -> dict[str, Any]:
    content = {"text/plain": {}} if answer is None else _json(answer)
    return {
        "get": {"summary": summary, "parameters": list(parameters), "responses": _responses(content, 401, 431, *codes)}
    }


def _post(
    summary: str, answer: Any, body: Any, *parameters: Any, optional: bool = False, binary: bool = False
) -> dict[str, Any]:
    content = {"text/event-stream": {}} if answer is None else _json(answer)
    if binary:
        content["application/octet-stream"] = {}
    return {
        "post": {
            "summary": summary,
            "parameters": list(parameters),
            "requestBody": {"required": not optional, "content": _json(body)},
            "responses": _responses(content, *_STATUS),
        }
    }


def _responses(content: Any, *codes: int) -> dict[str, Any]:
    error = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}
    ready = {"type": "object"}  # of a health check, which says so itself
    refused = {str(c): {"description": _STATUS[c], "content": _json(ready if c == 503 else error)} for c in codes}
    return {"200": {"description": "Done.", "content": content}, **refused}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
