"""What eptx knows of ONNX Runtime's releases, and what a session of a too old one says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest

from eptx import Session
from eptx.bundle import OnnxRuntime
from eptx.errors import NotSupportedError
from eptx.runtime.ort.releases import NEWEST, read_release
from tests.old_ort.tables import wrong_in_tables
from tests.old_ort.wheels import said
from tests.support.decoders import write_decoder_bundle
from tests.support.tiny_bundle import write_tiny


def test_the_tables_are_those_of_the_installed_release() -> None:
    """`make old-ort` compares them with older ones. A newer release has to be tried, and noted, before it is used."""
    installed = read_release(onnxruntime.__version__)
    assert installed is not None and installed <= NEWEST
    assert list(wrong_in_tables(said(Path(sys.executable), "facts.py"), None)) == []


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(onnxruntime, "__version__", "1.16.3")
    yield "the bundle needs ONNX Runtime 1.17 or newer, and 1.16.3 is installed: install a newer one, or export again"


def test_an_older_runtime_is_refused_in_one_line(tmp_path: Path, old: str) -> None:
    write_tiny(tmp_path / "b", onnxruntime=OnnxRuntime("1.17", 9, 20))
    with pytest.raises(NotSupportedError, match=rf"^{old} with --min-ort 1\.16$"):
        Session(tmp_path / "b")


@pytest.mark.parametrize("version", [None, "1.16", "1.9", "0.99"])
def test_others_open(tmp_path: Path, old: str, version: str | None) -> None:
    """Also bundles from before eptx said it. Releases are compared as numbers: 1.9 is older than 1.16."""
    write_tiny(tmp_path / "b", onnxruntime=None if version is None else OnnxRuntime(version, 8, 18))
    assert Session(tmp_path / "b").tasks


def test_a_runtime_whose_version_is_no_number_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "nightly")
    write_tiny(tmp_path / "b", onnxruntime=OnnxRuntime("1.17", 9, 20))
    assert Session(tmp_path / "b").tasks


def test_generating_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_decoder_bundle(tmp_path / "b")
    assert bundle.manifest.onnxruntime is not None
    monkeypatch.setattr(onnxruntime, "__version__", "1.10.0")
    session = Session(bundle)
    with pytest.raises(NotSupportedError, match=r"needs ONNX Runtime 1\.\d+ or newer, and 1\.10\.0 is installed"):
        session.generate([[3, 4]], task=session.tasks[0])
