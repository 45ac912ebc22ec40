"""The scene itself is sound: what the other tests break, works before."""

from __future__ import annotations

import pytest

from tests.malformed.scene import MODE, Cli, Scene


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("adapter", MODE)
def test_exports(scene: Scene, cli: Cli, adapter: str, base: bool) -> None:
    result = cli(*scene.export_args(adapter, base=base))
    assert result.code == 0, result
    assert result.err == ""
    assert sorted(path.name for path in scene.out.iterdir()) == ["b", "b.sources.json"]
