"""`eptx bench` of language models: what it counts, and what it says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eptx.errors import UsageError
from eptx.runtime import Session
from eptx.runtime.measure.speed import NEW_TOKENS, generation_speeds
from eptx.runtime.timing import TimedModel, spread
from tests.malformed.scene import Cli
from tests.runtime.generation.conftest import Workshop


def test_rates_are_those_of_a_stream_whose_times_are_known(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows: 40 ms to their first tokens, then five steps of 20 ms in which one row has ended after two."""

    def stream(self: Session, *_: Any, **__: Any) -> Iterator[Any]:
        time.sleep(0.04)
        for step in range(6):
            time.sleep(0.02 if step else 0)
            yield from [SimpleNamespace()] * (2 if step < 3 else 1)

    session = Session(workshop.bundle("ept"), verify=False)
    monkeypatch.setattr(Session, "stream", stream)
    (speeds,) = generation_speeds([session], 2, 8, 3)
    assert speeds["first_token_milliseconds"] == pytest.approx(40, rel=0.3)
    assert speeds["prefill_tokens_per_second"] == pytest.approx(16 / 0.04, rel=0.3)
    assert speeds["decode_tokens_per_second"] == pytest.approx(7 / 0.1, rel=0.3)


def test_answers_are_whole_and_of_the_shape(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    session, asked = Session(workshop.bundle("ept"), verify=False), list[Any]()
    real = Session.stream

    def stream(self: Session, prompts: Any, task: Any, **options: Any) -> Any:
        asked.append((prompts, task, options))
        return real(self, prompts, task, **options)

    monkeypatch.setattr(Session, "stream", stream)
    (speeds,) = generation_speeds([session], 3, 5, 2)
    assert all(value and value > 0 for value in speeds.values())
    prompts, task, options = asked[-1]
    assert np.shape(prompts) == (3, 5) and task == ["task0", "task1", "task2"]
    assert options == {"max_new_tokens": NEW_TOKENS}
    generation = session.manifest.generation
    assert generation is not None and not {*np.ravel(prompts)} & {*generation.eos, generation.pad}
    with pytest.raises(UsageError, match=r"1x100: 100 tokens of a prompt and 32 of the answer are more than .* 128"):
        generation_speeds([session], 1, 100, 1)


def test_a_run_of_a_language_model_is_one_of_the_prompt_alone(workshop: Workshop) -> None:
    feeds = TimedModel(workshop.bundle("ept").path).feeds(2, 7)
    assert feeds["attention_mask"].shape == feeds["input_ids"].shape == (2, 7)
    assert {array.shape[2] for name, array in feeds.items() if name.startswith("past_key_values.")} == {0}


def test_bench_prints_tokens_a_second(workshop: Workshop, cli: Cli) -> None:
    path = workshop.bundle("ept").path
    result = cli("bench", path, "--shapes", "2x6", "--pairs", "2", "--threads", "1")
    assert result.code == 0, result.err
    assert result.err.startswith(f"{path.name}: provider cpu")
    lines = result.out.splitlines()
    assert lines[0] == "medians (10th to 90th percentile)"
    assert lines[4].split() == ["shape", "first", "token", "ms", "prefill", "tokens/s", "decode", "tokens/s"]
    assert max(map(len, lines)) <= 80
    told = json.loads(cli("bench", path, "--shapes", "2x6", "--pairs", "1", "-q", "--json").out)
    (answers,) = told["answers"]
    assert answers["decode_tokens_per_second_p10"] <= answers["decode_tokens_per_second"]
    assert told["rows"][0]["milliseconds_p90"] > 0
    both = cli("bench", path, "--against", path, "--shapes", "1x6", "--pairs", "1", "-q")
    assert both.out.count(path.name) == 2


def test_spread_is_numpys() -> None:
    found = spread("x", [4.0, 1.0, 2.0, 3.0, 10.0])
    assert found == {"x": 3.0, "x_p10": pytest.approx(1.4), "x_p90": pytest.approx(7.6)}
