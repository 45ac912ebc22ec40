"""Which requests share a run, and that each gets its own rows of it, bit for bit."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eptx.errors import RequestError
from eptx.runtime import Outputs, Session
from eptx.runtime.serving.batching.batcher import Batcher, Job
from eptx.runtime.serving.batching.collate import Collator
from eptx.runtime.serving.batching.scheduler import next_batch
from eptx.runtime.serving.errors import Overdue, Refused
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.preprocess import Preprocessor
from eptx.runtime.serving.protocol.infer import InferRequest
from tests.support.tiny_bundle import tiny_manifest, write_tiny

LIMITS = Limits(max_delay=0.05)


@dataclass(eq=False)
class Load:
    """A request that waits, as `next_batch` sees it."""

    length: int
    rows: int = 1
    batch_key: str | None = "tokens"


def lengths(loads: list[Load]) -> list[int]:
    return [load.length for load in loads]


def test_a_run_takes_what_waits_in_the_order_of_arrival() -> None:
    waiting = [Load(8) for _ in range(40)]
    assert next_batch(waiting, LIMITS, 48) == waiting[:32]


def test_a_long_row_waits_for_its_own_run() -> None:
    waiting = [Load(8), Load(120), Load(9), Load(128), Load(8)]
    assert lengths(next_batch(waiting, LIMITS, 48)) == [8, 9, 8]
    assert lengths(next_batch([waiting[1], waiting[3]], LIMITS, 48)) == [120, 128]


def test_the_oldest_always_goes() -> None:
    waiting = [Load(500), *(Load(8) for _ in range(300))]
    assert lengths(next_batch(waiting, LIMITS, 48)) == [500]


def test_what_cannot_be_merged_goes_alone() -> None:
    alone, other = Load(8, batch_key=None), Load(8, batch_key="images")
    assert next_batch([alone, Load(8, batch_key=None), Load(8)], LIMITS, 48) == [alone]
    assert lengths(next_batch([Load(8), other, Load(9), alone], LIMITS, 48)) == [8, 9]


def test_rows_are_padded_as_far_as_another_run_would_cost() -> None:
    waiting = [Load(8), Load(40)]
    assert lengths(next_batch(waiting, LIMITS, 31)) == [8]
    assert lengths(next_batch(waiting, LIMITS, 32)) == [8, 40]


def test_a_run_ends_where_more_rows_gain_nothing() -> None:
    assert len(next_batch([Load(64) for _ in range(40)], LIMITS, 12)) == 12  # 768 tokens: 1.5 % overhead
    assert len(next_batch([Load(64) for _ in range(40)], LIMITS, 4000)) == 32


@given(
    st.lists(st.tuples(st.integers(1, 512), st.integers(1, 32)), min_size=1, max_size=80),
    st.sampled_from((8, 48, 3000)),
)
def test_a_run_stays_within_its_limits(shapes: list[tuple[int, int]], overhead: int) -> None:
    waiting = [Load(length, rows) for length, rows in shapes]
    limits = replace(LIMITS, max_tokens=4096)
    chosen = next_batch(waiting, limits, overhead)
    rows, longest = sum(load.rows for load in chosen), max(lengths(chosen))
    assert chosen[0] is waiting[0]
    assert len(set(map(id, chosen))) == len(chosen)
    if len(chosen) > 1:
        assert rows <= 32
        assert rows * longest <= 4096
        assert rows * longest - sum(load.rows * load.length for load in chosen) <= max(overhead, 0.1 * rows * longest)


class Recording(Session):
    """A session that keeps what it was asked."""

    def __init__(self, bundle: Path, **settings: Any) -> None:
        super().__init__(bundle, **settings)
        self.asked: list[Mapping[str, Any]] = []

    def run_checked(self, arrays: Any) -> Outputs:
        self.asked.append(arrays)
        return super().run_checked(arrays)


@pytest.fixture
def recording(folder: Path) -> Recording:
    return Recording(folder / "open", threads=1)


def job(session: Session, collator: Collator, arrays: Mapping[str, Any], task: Any, seconds: float = 20.0) -> Job:
    parameters = {"tasks": task} if isinstance(task, list) else {"task": task}
    inputs = {name: np.array(value) for name, value in arrays.items()}
    checked = Preprocessor(session, LIMITS)(InferRequest(inputs, parameters)).arrays
    future = asyncio.get_running_loop().create_future()
    rows, length = checked["input_ids"].shape
    return Job(checked, rows, length, collator.batch_key(checked), "any", time.monotonic() + seconds, future)


def answers(session: Session, requests: list[tuple[Mapping[str, Any], Any]], limits: Limits = LIMITS) -> list[Any]:
    """What a batcher answers to requests that come at once: outputs or exceptions."""

    async def ask() -> list[Any]:
        collator = Collator(session.manifest)
        batcher = Batcher("m", session, collator, limits, Metrics())
        jobs = [job(session, collator, *request) for request in requests]
        for one in jobs:
            batcher.submit(one)
        try:
            return await asyncio.gather(*(one.answer for one in jobs), return_exceptions=True)
        finally:
            await asyncio.to_thread(batcher.close)

    return asyncio.run(ask())


REQUESTS: list[tuple[Mapping[str, Any], Any]] = [
    ({"input_ids": [[2, 5, 3]]}, "sst2"),
    ({"input_ids": [[2, 6, 7, 8, 3], [2, 9, 3, 0, 0]], "attention_mask": [[1] * 5, [1, 1, 1, 0, 0]]}, ["mnli", "stsb"]),
    ({"input_ids": [[2, 10, 4, 3]], "token_type_ids": [[0, 1, 1, 1]]}, "base"),
]


def test_one_run_answers_all_bit_for_bit(recording: Recording) -> None:
    got = answers(recording, REQUESTS)
    (asked,) = recording.asked
    np.testing.assert_array_equal(
        asked["input_ids"], [[2, 5, 3, 0, 0], [2, 6, 7, 8, 3], [2, 9, 3, 0, 0], [2, 10, 4, 3, 0]]
    )
    np.testing.assert_array_equal(asked["attention_mask"].sum(axis=1), [3, 5, 3, 4])
    np.testing.assert_array_equal(asked["task_id"], [0, 1, 2, 3])
    whole = recording.run(asked)
    start = 0
    for (inputs, task), outputs in zip(REQUESTS, got, strict=True):
        rows, length = np.shape(inputs["input_ids"])
        part = slice(start, start + rows)
        np.testing.assert_array_equal(outputs["logits"], whole["logits"][part], strict=True)
        np.testing.assert_array_equal(
            outputs["last_hidden_state"], whole["last_hidden_state"][part, :length], strict=True
        )
        assert outputs.tasks == (tuple(task) if isinstance(task, list) else (task,) * rows)
        assert outputs.labels == whole.labels[part]
        start += rows


def test_a_lone_request_is_answered_as_the_session_does(recording: Recording) -> None:
    for inputs, task in REQUESTS:
        (outputs,) = answers(recording, [(inputs, task)])
        expected = recording.run(inputs, task)
        for name in expected:
            np.testing.assert_array_equal(outputs[name], expected[name], strict=True)


def test_only_the_poisoned_request_fails(recording: Recording) -> None:
    poisoned = ({"input_ids": [[2, 99, 3]]}, "sst2")
    got = answers(recording, [REQUESTS[0], poisoned, *REQUESTS[1:]])
    assert [len(asked["input_ids"]) for asked in recording.asked] == [5, 1, 1, 2, 1]
    assert isinstance(got[1], RequestError)
    for (inputs, task), outputs in zip(REQUESTS, (got[0], *got[2:]), strict=True):
        np.testing.assert_array_equal(outputs["logits"], recording.run(inputs, task)["logits"])


def test_the_queue_has_an_end(recording: Recording) -> None:
    limits = Limits(max_batch=2, queue=2)
    with pytest.raises(Refused, match="the queue is full: 2 rows wait") as caught:
        answers(recording, [(REQUESTS[0][0], "sst2")] * 2 + [(REQUESTS[1][0], "sst2")] * 9, limits)
    assert caught.value.status == 429


def test_what_is_late_does_not_run(recording: Recording) -> None:
    async def ask() -> Any:
        collator = Collator(recording.manifest)
        batcher = Batcher("m", recording, collator, LIMITS, Metrics())
        late, other = (job(recording, collator, REQUESTS[0][0], "sst2", seconds) for seconds in (0.01, 20))
        batcher.submit(late)
        batcher.submit(other)
        try:
            return await asyncio.gather(late.answer, other.answer, return_exceptions=True)
        finally:
            batcher.close()

    late, other = asyncio.run(ask())
    assert isinstance(late, Overdue)
    assert other["logits"].shape == (1, 3)
    assert [len(asked["input_ids"]) for asked in recording.asked] == [1]


def test_who_leaves_while_it_runs_leaves_the_others_their_answers(folder: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    class Held(Session):
        def run_checked(self, arrays: Any) -> Outputs:
            begun.set()
            assert go.wait(20)
            return super().run_checked(arrays)

    async def ask() -> Outputs:
        session, limits = Held(folder / "open", threads=1), Limits(max_delay=0.05)
        collator = Collator(session.manifest)
        batcher = Batcher("m", session, collator, limits, Metrics())
        leaves, stays = (job(session, collator, {"input_ids": [[2, token]]}, "sst2") for token in (5, 6))
        batcher.submit(leaves)
        batcher.submit(stays)
        assert await asyncio.to_thread(begun.wait, 20)
        batcher.drop(leaves)
        go.set()
        try:
            return await stays.answer
        finally:
            batcher.close()

    expected = Session(folder / "open", threads=1).run({"input_ids": [[2, 5], [2, 6]]}, "sst2")
    np.testing.assert_array_equal(asyncio.run(ask())["logits"], expected["logits"][1:])


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({}, True),
        ({"method": "tucka", "mode": "dynamic", "routing": "row"}, True),
        ({"method": "tucka", "mode": "dynamic", "routing": "batch"}, False),
        ({"precision": "int8"}, True),
    ],
)
def test_what_depends_on_its_neighbours_is_not_merged(changes: Mapping[str, Any], shares: bool) -> None:
    collator = Collator(tiny_manifest(**changes))
    arrays = {name: np.ones((1, 3), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    assert (collator.batch_key(arrays) is not None) == shares


def test_without_a_mask_only_equal_shapes_are_merged() -> None:
    manifest = tiny_manifest()
    inputs = tuple(spec for spec in manifest.inputs if spec.name != "attention_mask")
    collator = Collator(replace(manifest, inputs=inputs))
    short, long = ({"input_ids": np.ones((1, length), np.int64)} for length in (3, 4))
    assert collator.batch_key(short) != collator.batch_key(long)
    assert collator.batch_key(short) == collator.batch_key({"input_ids": np.ones((7, 3), np.int64)})


def test_pads_with_the_model_s_own_token(tmp_path: Path) -> None:
    from eptx.runtime.serving.models.infer import _pad_id

    assert _pad_id(write_tiny(tmp_path / "bundle")) == 0
    collator = Collator(tiny_manifest(), pad=7)
    rows = [{"input_ids": np.ones((1, length), np.int64)} for length in (1, 3)]
    np.testing.assert_array_equal(collator.collate(rows)["input_ids"], [[1, 7, 7], [1, 1, 1]])
