"""The example for Node and browsers with its packages, and a browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.web import ROOT, WEB
from tests.support.browser import Browser
from tests.support.kept_traces import traces_are_kept

__all__ = ["traces_are_kept"]


@pytest.fixture(scope="session")
def modules() -> Path:
    """The packages that the example pins, installed in the example by its user or in build/ by this."""
    if (WEB / "node_modules").is_dir():
        return WEB / "node_modules"
    folder = ROOT / "build" / "web"
    lock = folder / "package-lock.json"
    if not (folder / "node_modules").is_dir() or lock.read_bytes() != (WEB / lock.name).read_bytes():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", ".npmrc", lock.name):
            shutil.copy(WEB / name, folder)
        done = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            lock.unlink()
            pytest.skip(f"npm ci failed: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules"


@pytest.fixture(scope="module")
def example(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages, for tests to complete."""
    folder = tmp_path_factory.mktemp("example") / "web"
    made = ("node_modules", "bundle", "bundle.proof", "vendor")
    shutil.copytree(WEB, folder, ignore=shutil.ignore_patterns(*made))
    (folder / "node_modules").symlink_to(modules)
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser() as running:
        yield running
