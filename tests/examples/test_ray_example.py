"""The deployment file of examples/ray_serve, as far as it can be seen without Ray."""

from __future__ import annotations

import re
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_serve"


def test_the_readme_shows_the_file() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    assert shown == (EXAMPLE / "serve.yaml").read_text()
