"""Progress lines."""

from __future__ import annotations

import io
import re

import pytest

from eptx.progress import duration, note, shown, step


def _run(enabled: bool = True) -> str:
    stream = io.StringIO()
    with shown(enabled, stream):
        with step("outer"), step("inner"):
            note("a note")
        with step("second"):
            pass
    with step("after"):
        pass
    return re.sub(r"\d+\.\d s", "T", stream.getvalue())


def test_lines() -> None:
    assert _run() == "outer ...\n  inner ...\n    a note\n  inner: T\nouter: T\nsecond ... T\n"


def test_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(enabled=False) == ""
    assert capsys.readouterr() == ("", "")


def test_failure_is_said() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError), shown(stream=stream), step("work"):
        raise KeyError
    assert stream.getvalue() == "work ... failed\n"


def test_a_closed_stream_ends_nothing() -> None:
    stream = io.StringIO()
    with shown(stream=stream), step("work"):
        stream.close()


def test_durations() -> None:
    assert [duration(s) for s in (0.2, 40.4, 89, 91, 239, 5399, 5401, 36000)] == [
        "1 s",
        "40 s",
        "89 s",
        "2 min",
        "4 min",
        "90 min",
        "1.5 h",
        "10.0 h",
    ]
