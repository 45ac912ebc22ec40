"""Reading hostile files, and names that stay inside."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eptx.errors import BundleError
from eptx.files.publish import replace_file
from eptx.files.safe_files import fingerprint, hash_file, is_contained_name, list_files, open_regular


@pytest.mark.parametrize("name", ["a", "a.b", "a/b", "a/b/c.onnx", ".hidden", "..a", "a..", "model.onnx.data", "é"])
def test_contained(name: str) -> None:
    assert is_contained_name(name)


OUTSIDE = """
. .. / /a a/ a//b ../a a/../b a/.. ./a a\\b ..\\a C:a C:/a * */_ORT_MEM_ADDR_/* \\\\host\\share
"""


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "a" * 2000, *OUTSIDE.split()])
def test_not_contained(name: str) -> None:
    assert not is_contained_name(name)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert hash_file(tmp_path / "file", error=BundleError) == (3, hashlib.sha256(b"abc").hexdigest())
    assert hash_file(tmp_path / "link", error=BundleError)[0] == 3
    for name in ("fifo", "folder"):
        with pytest.raises(BundleError, match=name), open_regular(tmp_path / name, error=BundleError):
            pass
    with (
        pytest.raises(BundleError, match="link: cannot be read"),
        open_regular(tmp_path / "link", error=BundleError, follow=False),
    ):
        pass


def test_listing(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d").write_bytes(b"1234")
    (tmp_path / "a").write_bytes(b"")
    assert list_files(tmp_path, error=BundleError) == {"a": 0, "b/c/d": 4}
    os.mkfifo(tmp_path / "b" / "pipe")
    with pytest.raises(BundleError, match="'b/pipe' is not a plain file"):
        list_files(tmp_path, error=BundleError)


def test_fingerprint_depends_on_names_and_contents(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(content)

    def of(**files: str) -> str:
        return fingerprint({k: tmp_path / v for k, v in files.items()}, error=BundleError)

    assert of(x="a", y="b") == of(y="b", x="c")
    assert len({of(x="a", y="b"), of(x="b", y="a"), of(x="a"), of(z="a")}) == 4
    assert of(x="a").startswith("sha256:")


def test_replace_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace_file(path, b"1")
    replace_file(path, b"2")
    assert path.read_bytes() == b"2"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_no_file_left_is_a_limit(tmp_path: Path) -> None:
    """The machine has no room for a file: nothing is wrong with the file."""
    (tmp_path / "file").write_bytes(b"x")
    program = """
import resource, sys
from pathlib import Path
from eptx.files.safe_files import hash_file, list_files
from eptx.errors import BundleError, LimitError
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
for read in (lambda: hash_file(folder / "file", error=BundleError), lambda: list_files(folder, error=BundleError)):
    try:
        read()
    except LimitError as e:
        print(e)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [
        "file: cannot be read: Too many open files",
        f"{tmp_path.name}: cannot be listed: Too many open files",
    ]
