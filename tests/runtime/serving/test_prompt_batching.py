"""Which prompts share a batch, when it begins, and what becomes of its rows."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eptx.calibration import export_bundle
from eptx.errors import RequestError, UsageError
from eptx.exporter import ExportOptions
from eptx.runtime import Piece, Session
from eptx.runtime.generation.outputs import Stream
from eptx.runtime.serving.batching import prompt_batcher
from eptx.runtime.serving.batching.prompt_batcher import PromptBatcher
from eptx.runtime.serving.batching.prompt_job import BatchGenerator, PromptJob
from eptx.runtime.serving.errors import Overdue, Refused
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.generate import GenerateService
from eptx.runtime.serving.models.prompts import PromptService
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_tucka
from tests.runtime.serving.servers import wait_for
from tests.support.decoders import write_decoder, write_decoder_bundle, write_tokenizer
from tests.support.encoder_decoders import VOCABULARY, write_encoder_decoder

TEXTS = ["w5 w9 w11", "w7 w8", "w50 w51 w52 w53 w54"]
TASKS = ["task0", "task1", "base"]
#: Nothing in these tests waits so long: a batch begins when it is full, or when all else is done.
LONG = 60.0


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(write_decoder_bundle(tmp_path_factory.mktemp("decoder") / "writer"), threads=1)


@pytest.fixture(scope="module")
def encoder_decoder(tmp_path_factory: pytest.TempPathFactory) -> Session:
    home = tmp_path_factory.mktemp("t5")
    base = write_encoder_decoder("t5", home / "base", num_layers=1)
    write_tokenizer(base, VOCABULARY)
    adapter = write_ept(home / "ept", linear_shapes(base, ("SelfAttention.q", "EncDecAttention.v")), seed=1, tasks=2)
    options = ExportOptions(mode="conditioned", top_k=2)
    return Session(export_bundle(base, [adapter], home / "bundle", options), threads=1)


class Served:
    """What answers a bundle's prompts, and what it counts."""

    def __init__(self, session: Session, generations: int, delay: float = LONG) -> None:
        self._metrics = Metrics()
        limits = Limits(generations=generations, max_delay=delay)
        self.prompts = PromptService("w", session, limits, self._metrics)
        self.service = GenerateService("w", session, self.prompts)

    def metric(self, name: str, labels: str = "") -> float:
        """The sum of a metric's series that have these labels."""
        lines = [line for line in self._metrics.text().decode().splitlines() if line.startswith(name + "{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if labels in line)

    @property
    def batches(self) -> tuple[float, float]:
        """Batches that began, and their rows."""
        return self.metric("eptx_generation_rows_count"), self.metric("eptx_generation_rows_sum")

    async def answers(self, bodies: Sequence[bytes]) -> list[Any]:
        """The answers to prompts that come at once, in this order; what still waits then is told to go."""
        asked = [asyncio.create_task(self.service.generate(body, time.monotonic() + LONG)) for body in bodies]
        await asyncio.sleep(0)  # each is in the queue now
        await asyncio.to_thread(self.prompts.close)
        return [json.loads(await answer) for answer in asked]


def body(text: str, task: str = "base", **parameters: Any) -> bytes:
    return json.dumps({"text_input": text, "parameters": {"task": task, "max_tokens": 8, **parameters}}).encode()


@pytest.mark.parametrize("kind", ["session", "encoder_decoder"])
def test_tasks_and_lengths_share_a_batch(kind: str, request: pytest.FixtureRequest) -> None:
    session: Session = request.getfixturevalue(kind)
    most = [4, 12, 7]
    pieces = list(session.stream(TEXTS, TASKS, max_new_tokens=12))
    rows = [[piece for piece in pieces if piece.row == row][:length] for row, length in enumerate(most)]
    assert [len(row) for row in rows] == most  # no row ends by itself before its own length
    served = Served(session, 3)
    bodies = [body(x, task, max_tokens=n) for x, task, n in zip(TEXTS, TASKS, most, strict=True)]
    answers = asyncio.run(served.answers(bodies))
    assert [answer["text_output"] for answer in answers] == ["".join(p.text for p in row) for row in rows]
    assert [answer["details"] for answer in answers] == [{"finish_reason": "length", "tokens": n} for n in most]
    assert served.batches == (1, 3)
    for task, count in zip(TASKS, most, strict=True):
        assert served.metric("eptx_generated_tokens_total", f'task="{task}"') == count


@pytest.mark.parametrize(
    "own", [{"seed": 3}, {"temperature": 0.5}, {"top_k": 7}, {"top_p": 0.5}, {"stop": ["w1 w2"]}], ids=str
)
def test_what_was_asked_differently_goes_alone(session: Session, own: dict[str, Any]) -> None:
    served = Served(session, 3)
    answers = asyncio.run(served.answers([body(TEXTS[0]), body(TEXTS[1], **own), body(TEXTS[2])]))
    assert served.batches == (2, 3)
    if "seed" in own:
        expected = session.generate(TEXTS[1], "base", max_new_tokens=8, **own)
        assert answers[1]["text_output"] == expected.texts[0]


def test_the_same_settings_share_a_batch(session: Session) -> None:
    served = Served(session, 3)
    own = {"temperature": 0.5, "top_k": 7, "top_p": 0.5, "stop": ["w1 w2", "w3"]}
    asyncio.run(served.answers([body(text, **own) for text in TEXTS]))
    assert served.batches == (1, 3)


def test_a_drawn_answer_with_a_seed_is_that_of_the_prompt_alone(session: Session) -> None:
    drawn = {"temperature": 1.5, "seed": 3, "max_tokens": 12}
    served = Served(session, 3)
    answers = asyncio.run(served.answers([body(text, **drawn) for text in TEXTS]))
    expected = [session.generate(t, "base", max_new_tokens=12, temperature=1.5, seed=3).texts[0] for t in TEXTS]
    assert [answer["text_output"] for answer in answers] == expected
    assert served.batches == (3, 3)


@pytest.mark.parametrize(("routing", "batches"), [("batch", 3), ("prompt", 1)])
def test_rows_that_depend_on_their_neighbours_have_none(tmp_path: Path, routing: str, batches: int) -> None:
    base = write_decoder("llama", tmp_path / "base")
    adapter = write_tucka(tmp_path / "tucka", linear_shapes(base, ("q_proj", "o_proj")), seed=2, strength=0.5)
    bundle = export_bundle(base, [adapter], tmp_path / "b", ExportOptions(mode="dynamic", routing=routing))
    session = Session(bundle, threads=1)
    served = Served(session, 3)
    bodies = [json.dumps({"text_input": text, "parameters": {"max_tokens": 8}}).encode() for text in TEXTS]
    answers = asyncio.run(served.answers(bodies))
    expected = [session.generate(text, max_new_tokens=8).texts[0] for text in TEXTS]
    assert [answer["text_output"] for answer in answers] == expected
    assert served.batches == (batches, 3)


def test_what_is_wrong_is_said_before_it_waits(session: Session) -> None:
    served = Served(session, 3)

    async def ask() -> None:
        for wrong in (body("w5", "task9"), body("w5", top_p=2), body("w5 " * 300), body("w5 " * 200, max_tokens=100)):
            with pytest.raises(RequestError):
                await served.service.generate(wrong, time.monotonic() + LONG)
        await asyncio.to_thread(served.prompts.close)

    asyncio.run(ask())
    assert served.batches == (0, 0)


def test_who_does_not_wait_any_more_leaves_the_queue(session: Session) -> None:
    served = Served(session, 3)

    async def ask() -> None:
        with pytest.raises(Overdue):
            await served.service.generate(body(TEXTS[0]), time.monotonic() + 0.05)
        leaving = asyncio.create_task(served.service.generate(body(TEXTS[1]), time.monotonic() + LONG))
        while not served.metric("eptx_queue_rows"):
            await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert served.metric("eptx_queue_rows") == 0
        await asyncio.to_thread(served.prompts.close)

    asyncio.run(ask())
    assert served.batches == (0, 0)


def test_a_lonely_prompt_waits_a_moment_only(session: Session) -> None:
    served = Served(session, 3, delay=0.05)

    async def ask() -> None:
        await asyncio.wait_for(served.service.generate(body(TEXTS[0]), time.monotonic() + LONG), LONG / 2)
        await asyncio.to_thread(served.prompts.close)

    asyncio.run(ask())
    assert served.batches == (1, 1)


def test_at_most_so_many_rows_as_the_back_end_takes() -> None:
    assert Limits(generations=32).generations == 32
    with pytest.raises(UsageError, match="generations must be at most 32, it is 33"):
        Limits(generations=33)


# the queue and its threads


class Batches:
    """Stands in for what writes: a batch goes on until it is told to end."""

    def __init__(self, session: Session, generations: int, *, delay: float = LONG, queue: int = 1024) -> None:
        limits = Limits(generations=generations, max_delay=delay, queue=queue, max_batch=1)
        self.begun: list[list[str]] = []
        self.end = threading.Semaphore(0)
        self.batcher = PromptBatcher("w", session.manifest, limits, Metrics(), self._write)
        self._session, self._names = session, dict[PromptJob, str]()

    def ask(self, *names: str, length: int = 2, room: int = 8, batch_key: str | None = "alike") -> list[PromptJob]:
        """Prompts that come one after the other."""
        jobs = []
        for name in names:
            request = self._session.check_prompts([[5] * length], "base", max_new_tokens=room)
            jobs.append(PromptJob(request, batch_key, lambda piece: None))
            self._names[jobs[-1]] = name
            self.batcher.submit(jobs[-1])
        return jobs

    def wait(self, *batches: str) -> None:
        """Until these have begun, each of the prompts whose names are its letters."""
        wait_for(lambda: len(self.begun) >= len(batches))
        assert ["".join(batch) for batch in self.begun] == list(batches)

    def close(self, *batches: str) -> None:
        """Ends what goes on, and all that waits; then these have begun."""
        self.end.release(100)
        self.batcher.close()
        self.wait(*batches)

    def _write(self, jobs: Sequence[PromptJob]) -> None:
        self.begun.append([self._names[job] for job in jobs])
        assert self.end.acquire(timeout=LONG)


def test_two_batches_at_once(session: Session) -> None:
    batches = Batches(session, 2)
    batches.ask("a", "b")
    batches.wait("ab")
    batches.ask("c", "d")  # full, so it begins beside the first
    batches.wait("ab", "cd")
    batches.ask("e", "f", "g")
    time.sleep(0.1)
    batches.wait("ab", "cd")
    batches.end.release()
    batches.wait("ab", "cd", "ef")
    batches.close("ab", "cd", "ef", "g")


def test_a_second_batch_that_is_not_full_waits_for_a_while(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_batcher, "_PATIENCE", 0.3)
    batches = Batches(session, 2, delay=0.0)
    batches.ask("a")
    batches.wait("a")
    came = time.monotonic()
    batches.ask("b")
    batches.wait("a", "b")
    assert time.monotonic() - came > 0.25
    batches.close("a", "b")


def test_what_waits_for_the_end_of_a_batch_leaves_together(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_batcher, "_PATIENCE", LONG)
    batches = Batches(session, 3, delay=0.0)
    batches.ask("a")
    batches.wait("a")
    batches.ask("b", "c")
    time.sleep(0.1)
    batches.end.release()
    batches.wait("a", "bc")
    batches.close("a", "bc")


@pytest.mark.parametrize(("ended", "waits"), [("ab", True), ("a", False)])
def test_after_a_batch_of_several_their_clients_are_waited_for(
    session: Session, monkeypatch: pytest.MonkeyPatch, ended: str, waits: bool
) -> None:
    monkeypatch.setattr(prompt_batcher, "_AGAIN", 1e6)
    monkeypatch.setattr(prompt_batcher, "_PATIENCE", 0.3 if waits else LONG)
    batches = Batches(session, 2, delay=0.0 if ended == "a" else 0.2)
    batches.ask(*ended)
    batches.wait(ended)
    batches.end.release()
    time.sleep(0.1)
    came = time.monotonic()
    batches.ask("c")
    batches.wait(ended, "c")
    assert time.monotonic() - came > 0.25 or not waits
    batches.close(ended, "c")


def test_the_oldest_goes_and_those_that_fit_it(session: Session) -> None:
    batches = Batches(session, 5)
    batches.ask("a", length=4)
    batches.ask("b", batch_key="other")
    batches.ask("c", length=100)  # its padding would cost more than it saves
    batches.ask("d")
    batches.ask("e", batch_key=None)
    batches.wait("ad")
    batches.close("ad", "b", "c", "e")


def test_prompt_and_answer_fit_into_the_context(session: Session) -> None:
    """A row's answer may stand behind the longest prompt of its batch."""
    batches = Batches(session, 3)
    batches.ask("a", length=100, room=100)
    batches.ask("b", length=60, room=190)
    batches.ask("c", length=90, room=156)
    batches.wait("ac")
    batches.close("ac", "b")


def test_a_full_queue(session: Session) -> None:
    batches = Batches(session, 8, queue=3)
    jobs = batches.ask("a", "b", "c")
    with pytest.raises(Refused, match="the queue is full: 3 prompts wait") as refused:
        batches.ask("d")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    batches.batcher.drop(jobs[1])
    batches.ask("e")
    batches.close("ace")


# what becomes of a batch's rows


class Row:
    """One prompt's pieces as they are given; its client leaves after some."""

    def __init__(self, session: Session, text: str, length: int, leaves: int | None = None) -> None:
        self.given: list[Piece | Exception] = []
        self._leaves = leaves
        self.job = PromptJob(session.check_prompts(text, "task1", max_new_tokens=length), None, self._take)

    def _take(self, item: Piece | Exception) -> None:
        self.given.append(item)
        self.job.cancelled = len(self.given) == self._leaves


def write(session: Session, *rows: Row) -> Metrics:
    metrics = Metrics()
    BatchGenerator("w", session, metrics)([row.job for row in rows])
    return metrics


def breaking(session: Session, monkeypatch: pytest.MonkeyPatch, fails: Callable[[int, int], bool]) -> None:
    """Has batches of so many rows fail after so many pieces."""
    started = session.stream_checked

    def broken(request: Any) -> Stream:
        stream, rows = started(request), len(request.prompts)

        def pieces() -> Any:
            with closing(stream):
                for count in itertools.count():
                    if fails(rows, count):
                        raise RequestError(f"it fails on {rows}")
                    yield next(stream)

        return Stream(pieces(), lambda: stream.tasks)

    monkeypatch.setattr(session, "stream_checked", broken)


def test_a_batch_goes_on_without_a_client_that_left(session: Session) -> None:
    leaving, staying = Row(session, TEXTS[0], 30, leaves=2), Row(session, TEXTS[1], 20)
    write(session, leaving, staying)
    assert len(leaving.given) == 2
    expected = session.generate(TEXTS[1], "task1", max_new_tokens=20)
    assert [piece.token_id for piece in staying.given if isinstance(piece, Piece)] == list(expected.token_ids[0])


def test_a_batch_ends_when_nobody_waits_for_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    breaking(session, monkeypatch, lambda rows, count: bool(taken.append(count)))  # type: ignore[func-returns-value]
    rows = [Row(session, TEXTS[0], 200, leaves=2), Row(session, TEXTS[1], 3), Row(session, TEXTS[2], 200, leaves=3)]
    metrics = write(session, *rows)
    assert [len(row.given) for row in rows] == [2, 3, 3]
    assert len(taken) < 13  # three steps of three rows, and one in which it is seen that the last has left
    assert b'eptx_generated_tokens_total{model="w",provider="cpu",task="task1"} 10.0' in metrics.text()


def test_a_batch_that_fails_at_once_is_written_prompt_by_prompt(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(session, monkeypatch, lambda rows, count: rows > 1)
    rows = [Row(session, text, 5) for text in TEXTS]
    rows[1].job.cancelled = True
    metrics = write(session, *rows)
    assert [len(row.given) for row in rows] == [5, 0, 5]
    assert b'eptx_generation_rows_count{model="w",provider="cpu"} 2.0' in metrics.text()


def test_a_batch_that_fails_later_fails_for_those_that_are_not_whole(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(session, monkeypatch, lambda rows, count: count == 5)
    rows = [Row(session, TEXTS[0], 9), Row(session, TEXTS[1], 2)]
    write(session, *rows)
    assert [type(item).__name__ for item in rows[0].given] == ["Piece", "Piece", "Piece", "RequestError"]
    assert [type(item).__name__ for item in rows[1].given] == ["Piece", "Piece"]
