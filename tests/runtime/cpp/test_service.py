"""examples/embed_cpp, built against an installed libeptx, answers as a Python session does."""

from __future__ import annotations

import os
import re
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


@pytest.fixture(scope="module")
def built(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the example's programs, with no warning of the compiler."""
    folder = tmp_path_factory.mktemp("service")
    warnings = "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"
    _run(["cmake", "-S", SOURCE, "-B", folder, f"-DCMAKE_PREFIX_PATH={installed}", warnings])
    _run(["cmake", "--build", folder])
    return folder


def test_the_recipes_run_as_written(installed: Path, tmp_path: Path) -> None:
    """Those of the example's page, in a checkout whose build/install was moved there."""
    (tmp_path / "build").mkdir()
    shutil.copytree(installed, tmp_path / "build" / "install", symlinks=True)
    (tmp_path / "examples").symlink_to(SOURCE.parent)
    bundle = write_tiny(tmp_path / "build" / "demo" / "conditioned")
    commands = re.findall(r"^\$ (.*)$", (SOURCE / "README.md").read_text(), re.MULTILINE)
    known = ["make native", "DECODER_BUNDLE"]  # made above; test_generate runs it
    recipes = [each for each in commands if not any(name in each for name in known)]
    assert len(recipes) == len(commands) - len(known)
    # a token and a task that the small bundle has
    script = "set -e\n" + re.sub(r"\b\d{3,4}\b", "4", "\n".join(recipes)).replace("cola", "mnli")
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    session = Session(bundle)
    rows = [("sst2", 5), ("mnli", 4), ("sst2", 5)]
    wanted = [f"{task} {session.run({'input_ids': [[4] * length]}, task).labels[0]}" for task, length in rows]
    assert re.findall("^(?:sst2|mnli) .*$", done.stdout, re.MULTILINE) == wanted


def test_an_installed_tree_can_be_moved(installed: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(installed, tmp_path / "moved", symlinks=True)
    outside = [each for each in moved.rglob("*") if each.is_symlink() and os.path.isabs(os.readlink(each))]
    assert outside == []
    for file in (next(moved.rglob("libeptx.so")), moved / "bin" / "eptx-validate"):
        needed = _run(["ldd", file])
        assert re.findall(r"libonnxruntime\S* => (\S+)", needed), needed
        assert all(
            Path(path).resolve().is_relative_to(moved) for path in re.findall(r"onnxruntime\S* => (\S+)", needed)
        )


def test_service(built: Path, tmp_path: Path) -> None:
    service = built / "eptx_service"
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


def test_generate(built: Path, bundle_of: BundleOf) -> None:  # noqa: F811
    program = built / "eptx_generate"
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


def test_a_wrong_bundle(built: Path, tmp_path: Path) -> None:
    service = built / "eptx_service"
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
