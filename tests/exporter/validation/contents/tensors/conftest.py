"""Bases that are made once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.exporter.validation.contents.tensors.bases import Base, Made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Name and settings -> base."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("tensors")
    bases: dict[str, Base] = {}

    def get(name: str, **changes: Any) -> Base:
        key = f"{name} {changes}"
        if key not in bases:
            bases[key] = Base(name, home / str(len(bases)), **changes)
        return bases[key]

    return get
