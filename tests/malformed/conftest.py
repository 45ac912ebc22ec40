"""The scene, made once and copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.malformed.scene import Cli, Scene, copy_scene, make_scene
from tests.support.kept_traces import traces_are_kept

__all__ = ["traces_are_kept"]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capfd)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A scene that tests must not change."""
    return make_scene(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def scene(pristine: Scene, tmp_path: Path) -> Scene:
    """A scene that a test may break."""
    return copy_scene(pristine, tmp_path / "scene")
