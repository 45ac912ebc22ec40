"""Pages for people: each is one file that loads nothing from elsewhere, and shows what the server's own paths say.

The files here are parts of them. A page's policy lets a browser run its own script and nothing else, so text that a
model writes could do nothing even if it came in as markup.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from starlette.responses import Response

from eptx.reports.html import Html, h
from eptx.reports.page import STYLE

_FOLDER = Path(__file__).parent
_TITLES = {"home": "eptx serve", "docs": "API of eptx serve"}


def page(name: str) -> Response:
    """A page as the answer to a request.

    Args:
        name: ``home`` or ``docs``.
    """
    content, policy = _page(name)
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Response(content, media_type="text/html", headers=headers)


@cache
def _page(name: str) -> tuple[bytes, str]:
    """The page, and what a browser may do on it: its own style and script, and requests to this server."""
    style, script = STYLE + _part("style.css"), _part("common.js") + _part(f"{name}.js")
    head = [
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("title", _TITLES[name]),
        h("link", rel="icon", href="data:,"),
        h("style", Html(style)),
    ]
    body = h("body", h("main", Html(_part(f"{name}.html"))), h("script", Html(script)))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return ("<!doctype html>\n" + h("html", h("head", *head), body, lang="en") + "\n").encode(), policy


def _part(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
