"""OpenTelemetry spans, if its API is installed; the program's own configuration exports them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_trace, _propagate = _module("opentelemetry.trace"), _module("opentelemetry.propagate")


@contextmanager
def span(verb: str, headers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A span around a request, a child of the caller's if its headers say so.

    The block gets a dictionary; its items become the span's attributes.
    """
    attributes: dict[str, Any] = {}
    if _trace is None or _propagate is None:
        yield attributes
        return
    tracer, parent = _trace.get_tracer("eptx.serving"), _propagate.extract(headers)
    with tracer.start_as_current_span(verb, context=parent, kind=_trace.SpanKind.SERVER) as current:
        try:
            yield attributes
        finally:
            current.set_attributes(attributes)
