"""Sessions on the tiny bundles, opened once."""

from __future__ import annotations

from pathlib import Path

import pytest

from eptx.runtime import Session
from tests.support.kept_traces import traces_are_kept
from tests.support.tiny_bundle import write_tiny

__all__ = ["traces_are_kept"]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one bundle for each mode, named by the mode."""
    folder = tmp_path_factory.mktemp("bundles")
    for mode in ("static", "conditioned", "dynamic"):
        write_tiny(folder / mode, mode, tokenizer=True)
    return folder


@pytest.fixture(scope="session")
def static(bundles: Path) -> Session:
    return Session(bundles / "static", threads=1)


@pytest.fixture(scope="session")
def conditioned(bundles: Path) -> Session:
    return Session(bundles / "conditioned", threads=1)


@pytest.fixture(scope="session")
def dynamic(bundles: Path) -> Session:
    return Session(bundles / "dynamic", threads=1)
