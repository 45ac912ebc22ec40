"""Tiny bases for validation tests, each traced once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.register_assert_rewrite("tests.exporter.validation.workshop")

from tests.exporter.validation.workshop import Workshop

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A tiny BERT with its own classifier."""
    torch.set_num_threads(1)
    return Workshop(GOLDEN / "ept_bert48" / "base", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def headless_bert(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The same without, for adapters with task heads."""
    torch.set_num_threads(1)
    return Workshop(GOLDEN / "ept_bert48" / "base", tmp_path_factory.mktemp("headless"), headless=True)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A tiny Llama with its language model head."""
    torch.set_num_threads(1)
    return Workshop(GOLDEN / "ept_llama64" / "base", tmp_path_factory.mktemp("llama"))
