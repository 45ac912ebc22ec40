"""How likely the tokens of an answer were, against the trained model in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from eptx import Session
from eptx.errors import RequestError
from tests.runtime.generation.conftest import Workshop
from tests.support.trained import by_task

PROMPTS = [[10, 11, 12], [7], [50, 51, 52, 53, 54]]
TASKS = ["task0", "task1", "task2"]


@pytest.fixture(scope="module")
def session(workshop: Workshop) -> Session:
    return Session(workshop.bundle("ept"), threads=1)


@pytest.mark.parametrize("drawn", [{}, {"temperature": 1.7, "top_k": 60, "top_p": 0.95, "seed": 2}])
def test_they_are_those_of_the_trained_model(session: Session, workshop: Workshop, drawn: dict[str, Any]) -> None:
    """Of several tasks and lengths in one batch; a temperature does not change them."""
    pieces = list(session.stream(PROMPTS, TASKS, max_new_tokens=6, top_logprobs=4, **drawn))
    for row, (prompt, task) in enumerate(zip(PROMPTS, TASKS, strict=True)):
        own = [piece for piece in pieces if piece.row == row]
        ids = np.array([prompt + [piece.token_id for piece in own]])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        logits = by_task(workshop.reference("ept"), inputs, [int(task[-1])]).outputs["logits"][0, len(prompt) - 1 : -1]
        wanted = torch.tensor(np.asarray(logits, np.float64)).log_softmax(-1)
        for step, piece in enumerate(own):
            assert piece.logprobs is not None
            values, likeliest = wanted[step].topk(4)
            assert [token for token, _ in piece.logprobs.top] == likeliest.tolist()
            np.testing.assert_allclose([value for _, value in piece.logprobs.top], values, atol=1e-4)
            np.testing.assert_allclose(piece.logprobs.token, wanted[step][piece.token_id], atol=1e-4)


def test_they_change_no_answer_and_come_when_asked_for(session: Session) -> None:
    plain = list(session.stream(PROMPTS, TASKS, max_new_tokens=6, temperature=0.9, seed=3))
    assert all(piece.logprobs is None for piece in plain)
    asked = list(session.stream(PROMPTS, TASKS, max_new_tokens=6, temperature=0.9, seed=3, top_logprobs=0))
    assert [piece.token_id for piece in asked] == [piece.token_id for piece in plain]
    assert all(piece.logprobs is not None and piece.logprobs.top == () for piece in asked)


@pytest.mark.parametrize("wrong", [-1, 21, 1.5, True, "3"])
def test_how_many_is_bounded(session: Session, wrong: Any) -> None:
    with pytest.raises(RequestError, match="top_logprobs must be an integer from 0 to 20"):
        session.stream(PROMPTS, TASKS, top_logprobs=wrong)
