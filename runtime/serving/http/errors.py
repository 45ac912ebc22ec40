"""Errors as the clients of each protocol read them."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from eptx.runtime.serving.errors import Refused
from eptx.runtime.serving.protocol.openai.errors import error_object

#: What the paths of OpenAI's protocol begin with.
OPENAI = "/v1/"


def error_response(scope: Scope, refused: Refused) -> Response:
    """The answer to a request that is refused: an object for OpenAI's clients, one line for others."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))  # where the application is not at the server's root
    body = error_object(refused) if path.startswith(OPENAI) else {"error": refused.message}
    return JSONResponse(body, refused.status, refused.headers)
