"""The OpenAPI description against the server, and the spans of its requests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from eptx.runtime import Session
from eptx.runtime.serving.http.app import create_app
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.registry import LocalRegistry
from tests.runtime.serving.servers import Server


def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    """All checks but that what the description allows is accepted: it cannot say how shapes and data go together."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://{server.url}/openapi.json", "--checks=all"]
    options = "--exclude-checks positive_data_acceptance --phases coverage,fuzzing -n 5 --seed 1"
    done = subprocess.run(
        [*command, *options.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, "24 passed" in done.stdout) == (0, True), done.stdout[-4000:] + done.stderr[-2000:]
    assert server.call("GET", "/v2/health/ready")[0] == 200


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def test_a_request_is_a_span_of_its_caller(folder: Path, spans: InMemorySpanExporter) -> None:
    async def call() -> list[int]:
        limits, metrics = Limits(), Metrics()
        registry = LocalRegistry({"tiny": folder / "tiny"}, limits, metrics, partial(Session, threads=1))
        await registry.start()
        app = create_app(registry, metrics, limits)
        statuses: list[int] = []

        async def receive() -> dict[str, object]:
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(int(str(message["status"])))

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v2/models/tiny/infer",
            "headers": [(b"traceparent", PARENT.encode())],
            "query_string": b"",
            "root_path": "",
        }
        await app(scope, receive, send)  # type: ignore[arg-type]
        await registry.close()
        return statuses

    assert asyncio.run(call()) == [400]
    (span,) = spans.get_finished_spans()
    assert span.name == "infer"
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == PARENT.split("-")[1]
    assert dict(span.attributes or {}) == {"eptx.model": "tiny", "http.response.status_code": 400}
