"""The limits of a server."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from eptx.errors import RequestError, UsageError
from eptx.runtime.generation.settings import MOST_ROWS


@dataclass(frozen=True)
class Limits:
    """The limits of one server and each of its models.

    Attributes:
        max_batch: rows of one run, and of one request.
        max_tokens: rows times tokens of the longest, of one run and of one request; a single row is always taken.
        max_delay: seconds that an idle model waits for more requests when one arrives.
        queue: rows that may wait for one model; beyond, requests are refused with 429.
        max_body: bytes of one request's body.
        max_text: characters of all texts of one request, which are tokenized whole before they are cut.
        max_header: bytes of one request's line and headers.
        max_connections: open at once; fewer if the system lets a process open fewer files.
        timeout: seconds that one request may take from its last byte to the answer.
        read_timeout: seconds that a client may take to send the headers, and as many again for the body.
        drain_timeout: seconds that accepted requests may take after SIGTERM.
        generations: answers that a language model generates in one batch; two batches run at once.

    Raises:
        UsageError: one of them is out of range.
    """

    max_batch: int = 32
    max_tokens: int = 16384
    max_delay: float = 0.002
    queue: int = 1024
    max_body: int = 16 << 20
    max_text: int = 256 << 10
    max_header: int = 32 << 10
    max_connections: int = 4096
    timeout: float = 30.0
    read_timeout: float = 30.0
    drain_timeout: float = 30.0
    generations: int = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "max_delay" else 1 if isinstance(value, int) else 0.001
            if not least <= value < math.inf:
                raise UsageError(f"{field.name} must be at least {least}, it is {value}")
        if self.generations > MOST_ROWS:
            raise UsageError(f"generations must be at most {MOST_ROWS}, it is {self.generations}")
        if self.queue < self.max_batch:
            raise UsageError(f"queue must hold one batch: it is {self.queue}, max_batch is {self.max_batch}")

    def check_text(self, size: int) -> None:
        """Refuses a request whose texts have too many characters.

        Raises:
            RequestError: they have.
        """
        if size > self.max_text:
            raise RequestError(f"the request has {size} characters of text; this server takes {self.max_text}")
