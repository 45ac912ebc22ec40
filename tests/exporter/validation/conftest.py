"""Tiny bases for validation tests, each traced once."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch

from eptx.cli import main
from tests.exporter.validation.workshop import Workshop
from tests.support.decoders import write_tokenizer

Cli = Callable[..., tuple[int, str, str]]
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
    """A tiny Llama, which GenAI makes a graph of; its builder wants a tokenizer."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("llama")
    shutil.copytree(GOLDEN / "ept_llama64" / "base", folder / "base")
    write_tokenizer(folder / "base", 180)
    return Workshop(folder / "base", folder)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """The command line: exit code, standard output and error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with mock.patch.object(sys, "argv", ["eptx", *map(str, arguments)]), pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return (end.value.code, *capfd.readouterr())

    return run
