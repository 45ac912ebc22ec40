"""One server for most tests, with the tiny bundle and one that fails at run time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eptx.runtime import Session
from tests.runtime.serving.servers import Server, serving
from tests.support.tiny_bundle import NARROW, write_tiny


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles: ``tiny``; ``open``, which does not know its vocabulary, so that ONNX Runtime fails on token 99;
    ``narrow``, of which two tasks have fewer tokens; ``static`` and ``dynamic``."""
    folder = tmp_path_factory.mktemp("served")
    write_tiny(folder / "tiny", tokenizer=True)
    write_tiny(folder / "open", vocab_size=None)
    write_tiny(folder / "narrow", tasks=NARROW, tokenizer=True)
    write_tiny(folder / "static", "static", tokenizer=True)
    write_tiny(folder / "dynamic", "dynamic", tokenizer=True)
    return folder


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[Server]:
    bundles = [folder / name for name in ("tiny", "open", "narrow", "static", "dynamic")]
    limits = ["--max-body", "200000", "--read-timeout", "1", "--max-delay-ms", "30", "--log-level", "debug"]
    with serving(folder, *bundles, *limits) as server:
        yield server


@pytest.fixture(scope="session")
def session(folder: Path) -> Session:
    return Session(folder / "tiny", threads=1)
