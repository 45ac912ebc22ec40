"""Publication of a bundle: killed anywhere, the target is the old one, the new one or absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import eptx
from eptx.bundle import BundleWriter, read_bundle
from eptx.errors import BundleError, LimitError, UsageError
from eptx.files import publish
from tests.support.tiny_bundle import tiny_manifest, tiny_model, write_tiny

# Replaces the bundle, and kills itself at the n-th operation that the interpreter audits (open, mkdir, ...).
KILLED = """
import os, signal, sys
from pathlib import Path
from eptx.files import publish
from eptx.bundle import BundleWriter
from eptx.manifest.reader import read_manifest
from eptx.files.strict_json import read_json
from eptx.errors import BundleError
from dataclasses import replace

target, model, manifest, kill_at, exchange = sys.argv[1:]
if exchange == "no":
    publish._exchange = lambda a, b: False
data = Path(model).read_bytes()
manifest = replace(read_manifest(read_json(Path(manifest), error=BundleError)), generator="new")
left = int(kill_at)
def hook(event, args):
    global left
    if event.startswith(("os.", "shutil.", "open", "ctypes.")):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
with BundleWriter(target) as writer:
    writer.write("model.onnx", data)
    writer.write("README.md", "text")
    writer.finish(manifest)
print(left)
"""


def _replace(target: Path, kill_at: int, exchange: str) -> subprocess.CompletedProcess[str]:
    package = Path(eptx.__file__).parent.parent  # type: ignore[arg-type]
    model, manifest = target.parent / "new.onnx", target.parent / "new.json"
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(target), str(model), str(manifest), str(kill_at), exchange],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": f"{package}:{os.environ.get('PYTHONPATH', '')}",
            "PYTHONSAFEPATH": "1",
        },
    )


def _old(folder: Path) -> Path:
    """An old bundle, and beside it what the new one is made from."""
    target = write_tiny(folder / "bundle", generator="old").path
    (folder / "new.onnx").write_bytes(tiny_model().SerializeToString())
    (folder / "new.json").write_bytes((target / "eptx.json").read_bytes())
    return target


@pytest.mark.parametrize("exchange", ["yes", "no"])
def test_killed_anywhere(tmp_path: Path, exchange: str) -> None:
    target = _old(tmp_path)
    done = _replace(target, 10**6, exchange)
    assert done.returncode == 0, done.stderr
    points = 10**6 - int(done.stdout)
    assert points >= 30
    seen = set()
    for kill_at in range(1, points + 1, 1 if points <= 60 else 2):
        write_tiny(target, generator="old")
        assert _replace(target, kill_at, exchange).returncode == -9
        seen.add(read_bundle(target).manifest.generator if target.exists() else "absent")
        write_tiny(target, generator="old")
        assert {p.name for p in tmp_path.iterdir()} == {"bundle", "new.onnx", "new.json"}
    assert seen == {"old", "new"} | ({"absent"} if exchange == "no" else set())


def test_an_error_leaves_the_old_bundle(tmp_path: Path) -> None:
    target = write_tiny(tmp_path / "deep" / "bundle").path
    before = {p: p.read_bytes() for p in target.iterdir()}
    with pytest.raises(RuntimeError), BundleWriter(target) as writer:
        writer.write("model.onnx", b"x")
        raise RuntimeError
    assert {p: p.read_bytes() for p in target.iterdir()} == before
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_no_new_folders(tmp_path: Path) -> None:
    with pytest.raises(BundleError), BundleWriter(tmp_path / "a" / "b" / "bundle") as writer:
        writer.write("model.onnx", b"x")
        writer.finish(tiny_manifest())
    assert list(tmp_path.iterdir()) == []


def test_a_running_export_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "bundle") as running:
        running.write("README.md", "first")
        write_tiny(tmp_path / "bundle", generator="second")
        assert running.folder.exists()
        running.write("model.onnx", tiny_model().SerializeToString())
        running.finish(tiny_manifest(generator="first"))
    assert read_bundle(tmp_path / "bundle").manifest.generator == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_leftovers_of_other_targets_stay(tmp_path: Path) -> None:
    (tmp_path / ".other.eptx-00").mkdir()
    (tmp_path / ".bundle.eptx-00").mkdir()
    write_tiny(tmp_path / "bundle")
    assert {p.name for p in tmp_path.iterdir()} == {"bundle", ".other.eptx-00"}


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        target = write_tiny(tmp_path / "bundle").path
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o755
    assert {p.stat().st_mode & 0o777 for p in target.iterdir()} == {0o644}


def test_an_empty_folder_may_be_the_target(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    write_tiny(tmp_path / "bundle")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda p: p.write_text("x"), "is not a folder"),
        (lambda p: p.symlink_to("elsewhere"), "is not a folder"),
        (lambda p: (p.mkdir(), (p / "notes.txt").write_text("x")), "is not an eptx bundle"),
        (lambda p: (p.mkdir(), (p / "eptx.json").write_text("{")), "is not an eptx bundle"),
        (lambda p: (p.mkdir(), (p / "eptx.json").write_text("{}")), "is not an eptx bundle"),
        (lambda p: (p.mkdir(), (p / "link").symlink_to("x")), "is not an eptx bundle"),
        (lambda p: (write_tiny(p), (p / "notes.txt").write_text("x")), "holds 'notes.txt'"),
    ],
)
def test_what_is_not_a_bundle_is_not_replaced(tmp_path: Path, prepare, said: str) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "out"
    prepare(target)
    with pytest.raises(UsageError, match=said):
        BundleWriter(target)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "bundle", Path("/"), tmp_path / ("n" * 250), Path("/proc/bundle")):
        with pytest.raises(UsageError) as e:
            BundleWriter(target)
        assert "\n" not in str(e.value)


def test_a_full_disk_is_a_limit() -> None:
    error = publish.os_error(Path("x"), OSError(28, "No space left on device"))
    assert isinstance(error, LimitError)
    assert "No space left" in str(error)
