"""The router: its own command, and answers that are those of PEFT with a copy of the base for each classifier."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from eptx import Session
from examples.router import router
from tests.support.minilm import minilm


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The bundle, by the example's command, with what that prints."""
    path = tmp_path_factory.mktemp("router") / "bundle"
    command = [sys.executable, router.__file__, "--bundle", str(path)]
    return path, subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def test_the_command_routes_every_request(made: tuple[Path, str]) -> None:
    lines = made[1].splitlines()[1:]
    assert [line.split("  ")[-1] for line in lines] == list(router.REQUESTS)
    assert len({line.split()[0] for line in lines}) >= 3


def test_one_run_says_what_a_copy_for_each_classifier_says(made: tuple[Path, str]) -> None:
    session, texts = Session(made[0], provider="cpu"), list(router.REQUESTS)
    with mock.patch.object(session, "run", wraps=session.run) as run:
        routes = router.route(session, texts)
    assert run.call_count == 1
    names = json.loads((router.HERE / "labels.json").read_text())
    inputs = AutoTokenizer.from_pretrained(minilm())(texts, padding=True, return_tensors="pt")
    likeliest = []
    for at, task in enumerate(router.CLASSIFIERS):
        base = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=len(names[task]))
        model: Any = PeftModel.from_pretrained(base, str(router.HERE / "classifiers" / task)).eval()
        with torch.no_grad():
            found = model(**inputs).logits.softmax(1)
        assert [route.labels[at] for route in routes] == [names[task][i] for i in found.argmax(1).tolist()]
        likeliest.append(found.max(1).values.numpy())
    kind, mood, asks = likeliest
    counts = [{"question": asks, "review": mood, "news": kind}[route.labels[0]] for route in routes]
    wanted = [min(kind[i], own[i]) for i, own in enumerate(counts)]
    np.testing.assert_allclose([route.sure for route in routes], wanted, atol=1e-5)
    assert all((route.model == "general") == (route.sure < router.SURE) for route in routes)


def test_the_rules() -> None:
    assert router.model_for("question", "negative", "number") == "database"
    assert router.model_for("question", "positive", "person") == "search"
    assert router.model_for("review", "negative", "number") == "complaints"
    assert router.model_for("review", "positive", "time") == "thanks"
    assert router.model_for("news", "positive", "time") == "summarizer"
