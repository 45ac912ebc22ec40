"""The bundles that all of these tests damage."""

from __future__ import annotations

import pytest
import torch

from tests.exporter.validation.wrong.bases import Bases


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """Each base, adapter and bundle is made when it is first asked for."""
    torch.set_num_threads(1)
    return Bases(tmp_path_factory.mktemp("bases"))
