"""Many tests here export one model in several ways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kept_traces import kept_traces


@pytest.fixture(scope="module", autouse=True)
def _traces_are_kept() -> Iterator[None]:
    with kept_traces():
        yield
