"""OpenAI's request for embeddings, and its answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eptx._one_line import shown
from eptx.errors import RequestError
from eptx.files.strict_json import parse_json
from eptx.runtime.outputs import Array

#: The most inputs of one request, as OpenAI has it.
_MOST = 2048
_FORMATS = ("float", "base64")
_FIELDS = ("model", "input", "encoding_format", "dimensions", "user")


@dataclass(frozen=True)
class EmbeddingRequest:
    """One request.

    Attributes:
        model: the name that it gives: of a bundle, or of a bundle and a task with a colon between.
        rows: texts, or the token ids of each.
        dimensions: how many numbers of each embedding are wanted; None: all.
        as_base64: whether the numbers are wanted as the bytes of float32, in base64.
    """

    model: str
    rows: Sequence[str] | Sequence[Sequence[int]]
    dimensions: int | None
    as_base64: bool

    def name_and_task(self, names: Collection[str]) -> tuple[str, str | None]:
        """The bundle, of those with these names, and the task; None: the bundle's own choice."""
        name, colon, task = self.model.rpartition(":")
        return (self.model, None) if self.model in names or not colon else (name, task)


def parse_embeddings(body: bytes) -> EmbeddingRequest:
    """Reads ``{"model": ..., "input": ...}``.

    Raises:
        RequestError: the body is something else, or has a field that does not exist.
    """
    request = parse_json(body, what="the request", error=RequestError)
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise RequestError("the request must be a JSON object with a model and an input")
    unknown = next((name for name in request if name not in _FIELDS), None)
    if unknown is not None:
        raise RequestError(f"no field {shown(unknown)}; there are {', '.join(_FIELDS)}")
    form, dimensions = request.get("encoding_format", "float"), request.get("dimensions")
    if form not in _FORMATS:
        raise RequestError(f"encoding_format must be {' or '.join(_FORMATS)}, not {shown(form)}")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise RequestError(f"dimensions must be a number of at least 1, not {shown(dimensions)}")
    return EmbeddingRequest(request["model"], _rows(request.get("input")), dimensions, form == "base64")


def _rows(given: Any) -> Sequence[str] | Sequence[Sequence[int]]:
    rows = [given] if isinstance(given, str) or _is_ids(given) else given
    if not isinstance(rows, list) or not rows or not (all(isinstance(r, str) for r in rows) or all(map(_is_ids, rows))):
        raise RequestError("input must be a text, a list of texts, a list of token ids, or a list of such lists")
    if len(rows) > _MOST:
        raise RequestError(f"input has {len(rows)} entries; one request may have {_MOST}")
    return rows


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int and abs(token) < 2**31 for token in value)


def encode_embeddings(request: EmbeddingRequest, vectors: Array, tokens: int) -> bytes:
    """The answer to a request.

    Args:
        request: the request.
        vectors: float32 [rows, size], finite.
        tokens: how many the model has read.
    """
    found = np.asarray(vectors, "<f4")
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.tobytes()).decode() if request.as_base64 else row.tolist(),
        }
        for index, row in enumerate(found)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": data, "model": request.model, "usage": usage}).encode()
