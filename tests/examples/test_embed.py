"""The example that classifies and embeds: its own command, and one run that is what four runs are."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest

from eptx import Session
from tests.support.minilm import minilm
from tests.support.sentences import encoded

EXAMPLE = Path(__file__).parents[2] / "examples" / "embed" / "embed.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embed_example", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Made by the example's command, with what that prints."""
    path = tmp_path_factory.mktemp("embed") / "bundle"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--bundle", str(path)], capture_output=True, text=True, timeout=300, check=True
    )
    return path, done.stdout


def test_the_command_answers_every_message(bundle: tuple[Path, str], example: ModuleType) -> None:
    _, said = bundle
    lines = said.splitlines()
    assert lines[0].startswith("exporting ") and lines[1::2] == list(example.MESSAGES)
    assert "How do I return something? (0." in lines[2] and "Where is my parcel? (0." in lines[6]


def test_one_run_is_what_separate_runs_are(bundle: tuple[Path, str], example: ModuleType) -> None:
    session, messages = Session(bundle[0], provider="cpu"), list(example.MESSAGES)
    runs = []
    run = session.run
    with mock.patch.object(session, "run", lambda *given, **named: runs.append(1) or run(*given, **named)):
        found = example.answer(session, messages, example.QUESTIONS)
    assert len(runs) == 1
    alone = [session.run(messages, task=task).labels for task in ("sst2", "cola")]
    alone.append(session.run([(text, example.WISH) for text in messages], task="mnli").labels)
    assert [[each.mood, each.english, each.wish] for each in found] == [list(own) for own in zip(*alone, strict=True)]
    cosines = encoded(minilm(), messages) @ encoded(minilm(), example.QUESTIONS).T
    assert [each.question for each in found] == [example.QUESTIONS[i] for i in cosines.argmax(1)]
    np.testing.assert_allclose([each.similarity for each in found], cosines.max(1), atol=1e-5)
