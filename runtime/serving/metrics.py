"""The server's metrics for Prometheus."""

from __future__ import annotations

from functools import lru_cache, partial

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

#: In place of a task, for requests whose rows have several.
MIXED = "mixed"


class Metrics:
    """The metrics of one server; every method may be called from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=self._registry), partial(Histogram, registry=self._registry)
        task, run = ("model", "task", "provider"), ("model", "provider")
        self._requests = counter("eptx_requests", "Requests by model, verb and HTTP status.", ("model", "verb", "code"))
        self._rows = counter("eptx_rows", "Rows answered.", task)
        self._latency = histogram(
            "eptx_request_seconds", "From a request's last byte to its answer.", task, buckets=_SECONDS
        )
        self._waited = histogram("eptx_queue_seconds", "Time that a request waited for a run.", task, buckets=_SECONDS)
        self._ran = histogram("eptx_session_seconds", "Time of one run.", run, buckets=_SECONDS)
        self._batch = histogram("eptx_batch_rows", "Rows of one run.", run, buckets=_ROWS)
        self._tokens = counter(
            "eptx_tokens", "Tokens that ran: given by requests, or padding of batches.", ("model", "kind")
        )
        self._queue = Gauge("eptx_queue_rows", "Rows that wait.", ("model",), registry=self._registry)
        self._reloads = counter("eptx_reloads", "Loads of a replaced bundle.", ("model", "result"))
        self._generated = counter("eptx_generated_tokens", "Tokens of answers.", task)
        self._generation_rows = histogram(
            "eptx_generation_rows", "Answers that a language model generated in one batch.", run, buckets=_ROWS
        )
        # finding a child by its labels costs more than counting
        self._child = lru_cache(maxsize=4096)(lambda metric, *labels: metric.labels(*labels))

    def request(self, model: str, verb: str, code: int) -> None:
        """A request was answered or refused; ``model`` is empty if there is no model of that name."""
        self._child(self._requests, model, verb, code).inc()

    def answered(self, model: str, task: str, provider: str, rows: int, waited: float, seconds: float) -> None:
        """A request's rows were answered, ``seconds`` after the request came and ``waited`` seconds in the queue."""
        self._child(self._rows, model, task, provider).inc(rows)
        self._child(self._waited, model, task, provider).observe(waited)
        self._child(self._latency, model, task, provider).observe(seconds)

    def ran(self, model: str, provider: str, rows: int, tokens: int, area: int, seconds: float) -> None:
        """A run of ``rows`` and ``tokens`` ended; with padding its arrays held ``area`` tokens."""
        self._child(self._batch, model, provider).observe(rows)
        self._child(self._ran, model, provider).observe(seconds)
        self._child(self._tokens, model, "given").inc(tokens)
        self._child(self._tokens, model, "padding").inc(area - tokens)

    def queued(self, model: str, rows: int) -> None:
        """Rows entered the queue; a negative number of rows left it."""
        self._child(self._queue, model).inc(rows)

    def reloaded(self, model: str, result: str) -> None:
        """A replaced bundle was loaded (``done``) or did not load (``failed``)."""
        self._child(self._reloads, model, result).inc()

    def generating(self, model: str, provider: str, rows: int) -> None:
        """A batch of ``rows`` answers began."""
        self._child(self._generation_rows, model, provider).observe(rows)

    def generated(self, model: str, task: str, provider: str, tokens: int) -> None:
        """An answer of ``tokens`` ended."""
        self._child(self._generated, model, task, provider).inc(tokens)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
