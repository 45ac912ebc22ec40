"""Copies of bundles that eptx can validate."""

from __future__ import annotations

import shutil
from pathlib import Path


def copy_bundle(bundle: Path, to: Path) -> Path:
    """A copy of a bundle's folder, with the file beside it that says where its base and adapter are."""
    shutil.copytree(bundle, to)
    beside = bundle.with_name(f"{bundle.name}.sources.json")
    if beside.is_file():
        shutil.copy(beside, to.with_name(f"{to.name}.sources.json"))
    return to
