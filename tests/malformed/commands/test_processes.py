"""The command as a process of its own, as a shell starts it; and what a process meets: full disks, odd names."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import eptx
from eptx.bundle import read_bundle
from tests.malformed.breaks import WEIGHTS, cut
from tests.malformed.scene import Cli, Result, Scene, check_refusal, leaves_nothing

COMMAND = [sys.executable, "-m", "eptx"]
#: As a user's shell: no test settings, and the package from wherever this one came from.
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "EPTX"))},
    "PYTHONPATH": f"{Path(eptx.__file__).parent.parent}:{os.environ.get('PYTHONPATH', '')}",  # type: ignore[arg-type]
    "PYTHONSAFEPATH": "1",
}


def eptx_process(*args: str | Path | bytes, stdin: bytes = b"") -> Result:
    done = subprocess.run(
        [*COMMAND, *args], input=stdin, capture_output=True, check=False, timeout=120, env=ENVIRONMENT
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_export(scene: Scene) -> None:
    cut(f"ept/{WEIGHTS}", -1)(scene)
    with leaves_nothing(scene.root):
        check_refusal(eptx_process(*scene.export_args("ept")), 3, f"{WEIGHTS}: damaged safetensors file")


def test_usage(scene: Scene) -> None:
    check_refusal(eptx_process("export", scene.base), 2, "Missing option")


def test_progress_goes_before_the_error(scene: Scene, cli: Cli) -> None:
    """Without --quiet the steps are shown; the error is still the last line, by itself."""
    result = cli(*(arg for arg in scene.export_args("lora", "--mode dynamic") if arg != "--quiet"))
    assert result.code == 5
    *steps, last = result.err.splitlines()
    assert last.startswith("error: LoRA has no router")
    assert steps == ["reading the adapter ... failed"]


@pytest.mark.parametrize("verb", ["inspect", "run", "bench"])
def test_bundle(scene: Scene, verb: str) -> None:
    (scene.tiny / "evil.so").write_bytes(b"\x7fELF")
    check_refusal(eptx_process(verb, "-q", scene.tiny), 3, "'evil.so': not listed in eptx.json")


def test_text_that_is_none(scene: Scene) -> None:
    result = eptx_process("run", scene.tiny, "--task", "sst2", stdin=b"good film\n\xff\xfe\n")
    check_refusal(result, 3, "standard input, line 2: not UTF-8 text")
    check_refusal(eptx_process("run", scene.tiny, b"\xff\xfe", "--task", "sst2"), 3, "cannot be tokenized")


def test_nobody_reads_the_output(scene: Scene) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "inspect", scene.bundle],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        timeout=120,
        env=ENVIRONMENT,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [(">/dev/full", 6, "error: output: No space left on device\n"), (">&-", 0, ""), ("2>&-; exit 0", 0, "")],
)
def test_output_that_cannot_be_written(scene: Scene, output: str, code: int, said: str) -> None:
    command = ["sh", "-c", f'"$@" {output}', "sh", *COMMAND, "inspect", str(scene.bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (code, said)


def test_no_command_shows_the_help() -> None:
    result = eptx_process()
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Usage:")


def test_interrupted(scene: Scene) -> None:
    """Ctrl-C ends a wait for input with one line and the shell's exit code."""
    process = subprocess.Popen(
        [*COMMAND, "run", scene.tiny, "--task", "sst2", "--batch-size", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"good film\nbad film\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(b"sst2  ")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"\nerror: interrupted\n")  # the first line ends the terminal's ^C


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Files may not grow past a size, which is how a full disk looks to a program."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 700, 1500])
def test_a_full_disk(scene: Scene, cli: Cli, size: int) -> None:
    """While the model, its data or what follows is written."""
    scene.bundle.rename(scene.out / "b")
    before = read_bundle(scene.out / "b")
    arguments = scene.export_args("ept")
    with leaves_nothing(scene.out), small_files(size):
        result = _unlimited(cli, arguments, size)
    assert result.code == 6, result
    assert "File too large" in result.err
    assert len(result.err.splitlines()) == 1
    assert read_bundle(scene.out / "b") == before


def _unlimited(cli: Cli, arguments: list[str], size: int) -> Result:
    """The limit is for the export, not for the file that pytest captures its error in."""
    import click

    echo = click.echo

    def lifted(*args: object, **kwargs: object) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        echo(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click, "echo", lifted)
        return cli(*arguments)


@pytest.mark.parametrize("name", ["b\udcff", "b\n", "b\x1b[2J", "ｂ 🦜", "-b"])
def test_names_of_bundles(scene: Scene, cli: Cli, name: str) -> None:
    """Names that the file system takes: bytes that are no text, line breaks, escapes."""
    adapter = scene.lora.rename(scene.root / (name if name.isprintable() else "lora"))
    settings: list[str | Path] = ["--base-onnx", scene.onnx, "--mode", "conditioned", "-o", scene.out / name]
    result = cli("export", "-q", *settings, "--", adapter)
    assert (result.code, result.err) == (0, ""), result
    assert len(result.out.splitlines()) == 2  # what was written, and what it needs
    for json in ([], ["--json"]):
        result = cli("inspect", *json, "--", scene.out / name)
        assert (result.code, result.err) == (0, ""), result
        assert result.out.replace("\n", "").isprintable()
