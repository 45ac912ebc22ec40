"""What the HTTP application needs of models: `eptx serve` holds them itself; on a Ray cluster, replicas hold them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from eptx.runtime.serving.protocol.openai.embeddings import EmbeddingRequest
from eptx.runtime.serving.protocol.openai.request import CompletionRequest


class Model(Protocol):
    """One bundle that answers requests. A deadline is in `time.monotonic`'s seconds."""

    async def metadata(self) -> dict[str, Any]:
        """What the protocol tells of a model, and in ``parameters`` what is eptx's own."""
        ...

    async def infer(self, body: bytes, header_length: str | None, deadline: float) -> tuple[bytes, int | None]:
        """Answers an inference request.

        Args:
            body: as it was sent.
            header_length: the header that says how many bytes of the body are JSON, if it was sent.
            deadline: when the answer must be there.

        Returns:
            The answer's body, and the length of its JSON if binary data follow.

        Raises:
            RequestError: the request does not fit the bundle.
            Refused: 429, the queue is full; 504, the deadline passed.
        """
        ...

    async def embed(self, request: EmbeddingRequest, task: str | None, deadline: float) -> bytes:
        """Answers a request for embeddings.

        Args:
            request: as it was read.
            task: whose encoder; None: the base's, where the bundle serves it.
            deadline: when the answer must be there.

        Raises:
            RequestError, Refused: as `infer` does; or the bundle has no embeddings.
        """
        ...

    async def generate(self, body: bytes, deadline: float) -> bytes:
        """Answers a prompt: the whole answer as JSON.

        Raises:
            RequestError, Refused: as `infer` does; or the bundle does not generate.
        """
        ...

    def generate_stream(self, body: bytes, deadline: float) -> AsyncGenerator[bytes, None]:
        """Answers a prompt in server-sent events, one for each token. An error after the first is an event too.

        Raises:
            RequestError, Refused: before the first event, as `generate` does.
        """
        ...

    async def complete(self, request: CompletionRequest, deadline: float) -> bytes:
        """Answers a chat or text completion: the whole answer as JSON.

        Raises:
            RequestError, Refused: as `generate` does; 404, the bundle has no such task, or does not generate.
        """
        ...

    def complete_stream(self, request: CompletionRequest, deadline: float) -> AsyncGenerator[bytes, None]:
        """Answers a chat or text completion in server-sent events. An error after the first is an event too.

        Raises:
            RequestError, Refused: before the first event, as `complete` does.
        """
        ...


class Registry(Protocol):
    """The models of a server by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names."""
        ...

    @property
    def ready(self) -> bool:
        """Whether all models answer."""
        ...

    def use(self, name: str, version: str | None = None) -> AbstractContextManager[Model]:
        """A block with a model, which is kept until the block ends, even if a reload replaces it.

        Raises:
            Refused: 404, there is no model of that name and version; 503, the server is shutting down.
        """
        ...

    async def reload(self, name: str) -> str | None:
        """Loads a bundle again; returns why it failed, or None."""
        ...
