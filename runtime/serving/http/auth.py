"""Bearer tokens."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from eptx.errors import UsageError
from eptx.files.safe_files import read_bytes
from eptx.runtime.serving.errors import Refused
from eptx.runtime.serving.http.errors import error_response
from eptx.runtime.serving.metrics import Metrics

_LIMIT = 1 << 20
#: Paths that need no token, and that a busy server answers too: it must not seem dead.
HEALTH = ("/health", "/v2/health/live", "/v2/health/ready")
#: Pages, for which a browser sends no token. They are the same on every server: what they ask for needs one.
_PAGES = ("/", "/docs")


def read_tokens(path: Path) -> tuple[str, ...]:
    """The tokens of a file, one per line; empty lines and lines that begin with ``#`` are skipped.

    Raises:
        UsageError: the file cannot be read, or has none.
    """
    try:
        lines = read_bytes(path, error=UsageError, limit=_LIMIT).decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise UsageError(f"{path.name}: tokens must be of ASCII characters") from None
    tokens = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not tokens:
        raise UsageError(f"{path.name}: holds no token; write one on each line")
    return tokens


class BearerTokens:
    """Passes requests on that bring one of the tokens, and requests for the server's health and its empty pages.

    The time of a comparison does not depend on the tokens.

    Args:
        app: that answers the requests.
        tokens: of which a request must bring one.
        metrics: that count refusals.
    """

    def __init__(self, app: ASGIApp, tokens: Sequence[str], metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._digests = [_digest(token.encode("ascii")) for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on or refuses it with 401."""
        if scope["type"] == "http" and scope["path"] not in (*HEALTH, *_PAGES) and not self._allowed(scope):
            line = "send a token that this server knows, as the header Authorization: Bearer TOKEN"
            refused = Refused(401, line, {"WWW-Authenticate": "Bearer", "Connection": "close"})
            self._metrics.request("", "", 401)
            await error_response(scope, refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or given[0][:7].lower() != b"bearer ":
            return False
        digest = _digest(given[0][7:].strip())
        return any(hmac.compare_digest(digest, known) for known in self._digests)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
