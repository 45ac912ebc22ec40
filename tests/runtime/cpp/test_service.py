"""examples/embed_cpp, built against an installed libeptx both ways, answers as a Python session does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from eptx import Session
from tests.runtime.cpp.library import BUILD, load
from tests.runtime.cpp.library import Session as Native
from tests.runtime.cpp.test_generate import PROMPTS, BundleOf, bundle_of  # noqa: F401
from tests.runtime.cpp.test_generate import TASKS as TASKS_OF_PROMPTS
from tests.support.tiny_bundle import VOCABULARY, write_tiny

SOURCE = Path(__file__).parents[3] / "examples" / "embed_cpp"
TASKS = ("sst2", "mnli", "stsb", "base")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load()
    if shutil.which("cmake") is None or shutil.which("pkg-config") is None:
        pytest.skip("cmake and pkg-config are needed to build a program against libeptx")
    prefix = tmp_path_factory.mktemp("installed")
    _run(["cmake", "--install", BUILD, "--prefix", prefix])
    return prefix


def by_cmake(installed: Path, folder: Path) -> Path:
    _run(["cmake", "-S", SOURCE, "-B", folder, f"-DCMAKE_PREFIX_PATH={installed}"])
    _run(["cmake", "--build", folder])
    return folder / "eptx_service"


def by_pkg_config(installed: Path, folder: Path) -> Path:
    folder.mkdir()
    found = next(installed.rglob("eptx.pc")).parent
    flags = _run(["pkg-config", "--cflags", "--libs", "eptx"], PKG_CONFIG_PATH=str(found)).split()
    service = folder / "eptx_service"
    rpath = f"-Wl,-rpath,{found.parent}"
    _run(
        [
            "c++",
            "-std=c++17",
            "-Wall",
            "-Wextra",
            "-Werror",
            SOURCE / "service.cc",
            *flags,
            rpath,
            "-pthread",
            "-o",
            service,
        ]
    )
    return service


@pytest.mark.parametrize("build", [by_cmake, by_pkg_config])
def test_service(installed: Path, tmp_path: Path, build: object) -> None:
    assert callable(build)
    service: Path = build(installed, tmp_path / "service")
    bundle = write_tiny(tmp_path / "bundle").path
    rng = np.random.default_rng(0)
    requests = [(TASKS[i % 4], rng.integers(4, len(VOCABULARY), rng.integers(1, 9)).tolist()) for i in range(200)]
    lines = [f"{task} {' '.join(map(str, ids))}" for task, ids in requests]
    lines[50], lines[60], lines[70] = "rte 4 5", "sst2 4 99", "mnli"  # no such task, no such token, no tokens
    answers = _run([service, bundle, "4"], stdin="\n".join(lines)).splitlines()
    assert len(answers) == 200
    assert answers[50].startswith("rte error: no task 'rte'")
    assert answers[60].startswith("sst2 error: input input_ids[0, 1] is 99")
    assert answers[70].startswith("mnli error: ")
    session = Session(bundle, threads=1)
    for index, ((task, ids), answer) in enumerate(zip(requests, answers, strict=True)):
        if index in (50, 60, 70):
            continue
        wanted = session.run({"input_ids": [ids]}, task).labels[0]
        name, _, label = answer.partition(" ")
        assert name == task
        assert (
            label == "-" if wanted is None else str(wanted) == label or float(label) == pytest.approx(wanted, abs=1e-5)
        )


def test_generate(installed: Path, tmp_path: Path, bundle_of: BundleOf) -> None:  # noqa: F811
    program = by_cmake(installed, tmp_path / "service").with_name("eptx_generate")
    bundle = bundle_of("conditioned").path
    lines = [f"{task} {' '.join(map(str, prompt))}" for task, prompt in zip(TASKS_OF_PROMPTS, PROMPTS, strict=True)]
    for settings in ({}, {"temperature": 0.9, "seed": 4}):
        arguments = ["12", *map(str, settings.values())]
        printed = _run([program, bundle, *arguments], stdin="\n".join(lines)).splitlines()
        wanted = Native(bundle).generate(PROMPTS, TASKS_OF_PROMPTS, max_new_tokens=12, **settings)
        assert [line for line in printed if ":" in line] == [
            f"{row} {a.finish}: {' '.join(map(str, a.tokens))}" for row, a in enumerate(wanted)
        ]
        streamed = [line.split() for line in printed if ":" not in line]
        for row, answer in enumerate(wanted):
            assert [int(token) for at, token in streamed if int(at) == row] == answer.tokens
    done = subprocess.run([program, bundle, "0"], capture_output=True, text=True, timeout=60, input=lines[0])
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: max_new_tokens must be")


def test_a_wrong_bundle(installed: Path, tmp_path: Path) -> None:
    service = by_pkg_config(installed, tmp_path / "service")
    done = subprocess.run([service, tmp_path / "nowhere"], capture_output=True, text=True, timeout=60, input="")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"error: {tmp_path / 'nowhere'}: no such bundle\n"


def _run(command: list[str | Path], *, stdin: str | None = None, **more: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=300,
        input=stdin,
        env={**os.environ, **more},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
