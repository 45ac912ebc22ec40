"""Values that no argument of a session expects: each is refused by an error of eptx, with one short line, or taken."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx import Session
from eptx.errors import EptxError
from tests.support.chat import write_chat_bundle

VALUES: list[Any] = [
    *(10**5000, -(10**5000), 10**400, -(10**400), 2**64, 2**63, 2**31),
    *(1e308, 5e-324, -0.0, 0.5, float("nan"), float("inf"), True, 0, -1, None),
    *(
        "1",
        "\ud800",
        "a" * 100_000,
        b"1",
        (),
        {},
        {1, 2},
        [1],
        [None],
        ["a"],
        [[1]],
        [10**5000],
        range(3),
        object(),
        int,
    ),
    *(np.float32(0.5), np.int64(-3), np.bool_(True), np.array(3), np.array([1, 2]), np.datetime64("2020-01-01")),
    *(decimal.Decimal("1e999"), 1 + 2j),
]
_SETTINGS = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop", "add_special_tokens")
IDS = [[1, 2]]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(write_chat_bundle(tmp_path_factory.mktemp("wrong") / "chat"), threads=1)


def check(call: Callable[[Any], object]) -> None:
    for value in VALUES:
        try:
            call(value)
        except EptxError as error:
            line = str(error)
            assert 0 < len(line) < 400
            assert "\n" not in line


@pytest.mark.parametrize("name", _SETTINGS)
def test_settings(chat: Session, name: str) -> None:
    check(lambda value: chat.generate("a", **({"max_new_tokens": 2} | {name: value})))


def test_prompts_and_tasks(chat: Session) -> None:
    check(lambda value: chat.generate("a", value, max_new_tokens=2))
    check(lambda value: chat.generate(value, max_new_tokens=2))
    check(lambda value: chat.generate([value], max_new_tokens=2))
    check(lambda value: chat.generate([[value]], max_new_tokens=2))


def test_inputs(conditioned: Session) -> None:
    check(lambda value: conditioned.run(value, "sst2"))
    check(lambda value: conditioned.run([value], "sst2"))
    check(lambda value: conditioned.run("good", value))
    check(lambda value: conditioned.run("good", [value]))
    check(lambda value: conditioned.run({"input_ids": value}, "sst2"))
    check(lambda value: conditioned.run({"input_ids": [[value]]}, "sst2"))
    check(lambda value: conditioned.run({"input_ids": IDS, "attention_mask": [[1, value]]}, "sst2"))
    check(lambda value: conditioned.run({"input_ids": IDS, "task_id": value}))
    check(lambda value: conditioned.run({"input_ids": IDS, "task_id": [value]}))
    check(lambda value: conditioned.run({value if isinstance(value, int | str) else "x": IDS}, "sst2"))  # type: ignore[dict-item]


def test_a_sessions_arguments(conditioned: Session) -> None:
    bundle: Path = conditioned.bundle.path
    check(lambda value: Session(bundle, threads=value))
    check(lambda value: Session(bundle, value))
