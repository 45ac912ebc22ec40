"""How sessions end, and what they do in event loops and in children of fork."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

from eptx.bundle import Bundle
from eptx.errors import UsageError
from eptx.runtime import Session
from tests.support.decoders import write_decoder_bundle
from tests.support.tiny_bundle import write_tiny

ROWS = {"input_ids": [[2, 5, 3], [2, 6, 3]]}

#: A process answers, forks, and its child answers the same and ends as any other.
_FORK = """
import os, sys, threading, time
import eptx

def answer(session):
    if sys.argv[2] == "generate":
        return session.generate([[5, 6, 7]], session.tasks[0], max_new_tokens=4).token_ids
    return session.run({"input_ids": [[2, 5, 3]]}, session.tasks[0]).logits[0].tolist()

session = eptx.Session(sys.argv[1], threads=2)
expected = answer(session)
child = os.fork()
if child == 0:
    same = answer(session) == expected and answer(eptx.Session(sys.argv[1])) == expected
    print("answered", flush=True)
    sys.exit(7 if same else 8)
for _ in range(600):
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        print(os.waitstatus_to_exitcode(status), answer(session) == expected)
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
    print("hangs")
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_decoder_bundle(tmp_path_factory.mktemp("decoder") / "bundle")


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("kind", ["run", "generate"])
def test_a_child_of_fork(bundle: Bundle, decoder: Bundle, kind: str) -> None:
    path = {"run": bundle, "generate": decoder}[kind].path
    command = [sys.executable, "-c", _FORK, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split("\n")[:2] == ["answered", "7 True"], done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["run", "generate"])
def test_a_closed_session(bundle: Bundle, decoder: Bundle, kind: str) -> None:
    with Session({"run": bundle, "generate": decoder}[kind]) as session:
        _answer(session)
        opened = (session._generator._opened if kind == "generate" else session._model._opened).value
        assert opened is not None
        model = weakref.ref(opened[0] if kind == "run" else opened)
        del opened
    gc.collect()
    assert model() is None  # and its memory with it
    for _ in range(2):
        with pytest.raises(UsageError, match="the session is closed: open another"):
            _answer(session)
        session.close()


def test_an_answer_that_runs_goes_on(decoder: Bundle) -> None:
    session = Session(decoder)
    expected = session.generate([[5, 6, 7]], "task0", max_new_tokens=6).token_ids
    stream = session.stream([[5, 6, 7]], "task0", max_new_tokens=6)
    first = next(stream)
    session.close()
    assert (first.token_id, *(piece.token_id for piece in stream)) == expected[0]


def test_an_event_loop(bundle: Bundle, decoder: Bundle) -> None:
    async def ask() -> None:
        session, writer = Session(bundle), Session(decoder)
        many = await asyncio.gather(*(session.arun(ROWS, session.tasks[0]) for _ in range(4)))
        for outputs in many:
            np.testing.assert_array_equal(outputs["logits"], session.run(ROWS, session.tasks[0])["logits"])
        expected = writer.generate([[5, 6, 7]], "task0", max_new_tokens=6)
        assert await writer.agenerate([[5, 6, 7]], "task0", max_new_tokens=6) == expected
        pieces = [piece.token_id async for piece in writer.astream([[5, 6, 7]], "task0", max_new_tokens=6)]
        assert tuple(pieces) == expected.token_ids[0]

    asyncio.run(ask())


def test_a_stream_that_is_cancelled(decoder: Bundle) -> None:
    """Its generator is closed when the step that runs is over, and the session answers on."""
    session = Session(decoder)
    closed: list[bool] = []

    async def ask() -> None:
        stream = session.stream([[5, 6, 7]], "task0", max_new_tokens=200)
        end = stream.close
        stream.close = lambda: (end(), closed.append(True))  # type: ignore[method-assign, func-returns-value]

        async def read() -> None:
            async for _ in stream.in_threads():
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(200):
            if closed:
                break
            await asyncio.sleep(0.05)

    asyncio.run(ask())
    assert closed
    assert session.generate([[5, 6, 7]], "task0", max_new_tokens=2).token_ids[0]


def _answer(session: Session) -> None:
    if session.manifest.generation is not None:
        session.generate([[5, 6, 7]], session.tasks[0], max_new_tokens=2)
    else:
        session.run(ROWS, session.tasks[0])
