"""Answers requests for embeddings: their rows go through the queue in batches, beside those of other requests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import RequestError
from eptx.runtime.outputs import Array, Outputs
from eptx.runtime.requests.embeddings import batches_of, form_of
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.models.infer import InferService
from eptx.runtime.serving.protocol.openai.embeddings import EmbeddingRequest, encode_embeddings
from eptx.runtime.session import Session

_Batch = tuple[Sequence[int], dict[str, Array]]


class EmbedService:
    """Answers one model's requests for embeddings.

    Args:
        session: that runs.
        infer: that queues.
        limits: of the server.
    """

    def __init__(self, session: Session, infer: InferService, limits: Limits) -> None:
        self._session, self._infer, self._limits = session, infer, limits

    async def embed(self, request: EmbeddingRequest, task: str | None, deadline: float) -> bytes:
        """See `Model.embed`."""
        form = form_of(self._session.manifest, dimensions=request.dimensions)
        answers: list[tuple[Sequence[int], Outputs, Mapping[str, Array]]] = []
        for rows, arrays in await asyncio.to_thread(self._batches, request, task):
            answers.append((rows, await self._infer.run(arrays, deadline), arrays))
        tokens = sum(_tokens(arrays) for _, _, arrays in answers)
        vectors = form.join(answers)
        if not np.isfinite(vectors).all():
            raise RequestError("the model gives NaN for an input, which JSON does not have")
        return await asyncio.to_thread(encode_embeddings, request, vectors, tokens)

    def _batches(self, request: EmbeddingRequest, task: str | None) -> list[_Batch]:
        """The rows in batches that one run takes."""
        rows = request.rows
        texts = [row for row in rows if isinstance(row, str)]
        self._limits.check_text(sum(map(len, texts)))
        lengths = [0] if texts else sorted({len(row) for row in rows})
        if self._session.manifest.rows_share_route and (len(rows) > self._limits.max_batch or len(lengths) > 1):
            raise RequestError("the rows of this bundle share a route, and those of the request do not fit in one run")
        found = self._of(texts, task) if texts else []
        for length in () if texts else lengths:  # token ids are not padded: rows of one length run together
            places = [place for place, row in enumerate(rows) if len(row) == length]
            ids = np.array([rows[place] for place in places], np.int64)
            found += [([places[i] for i in own], arrays) for own, arrays in self._of({"input_ids": ids}, task)]
        return [part for batch in found for part in self._parts(*batch)]

    def _of(self, inputs: Any, task: str | None) -> list[_Batch]:
        session = self._session
        batches = batches_of(session.manifest, inputs, task, session.check, lambda: session.tokenizer)
        return [(list(places), arrays) for places, arrays in batches]

    def _parts(self, rows: Sequence[int], arrays: dict[str, Array]) -> list[_Batch]:
        most = self._limits.max_batch
        return [
            (rows[start : start + most], {name: array[start : start + most] for name, array in arrays.items()})
            for start in range(0, len(rows), most)
        ]


def _tokens(arrays: Mapping[str, Array]) -> int:
    mask = arrays.get("attention_mask")
    return int(arrays["input_ids"].size if mask is None else np.count_nonzero(mask))
