"""Bundles with their proofs, for `make sanitize`: python -m tests.runtime.cpp.proved FOLDER."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.exporter.validation.wrong.bases import Bases
from tests.support.bundles import copy_bundle

#: A conditioned encoder with task heads, and a decoder.
NAMES = ("heads", "llama")


def write_proved(folder: Path) -> None:
    """Writes each bundle as FOLDER/NAME and its proof as FOLDER/NAME.proof."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        bases = Bases(Path(scratch))
        for name in NAMES:
            shutil.copy(bases.proof(name), folder / f"{name}.proof")
            copy_bundle(bases.bundle(name).path, folder / name)


if __name__ == "__main__":
    write_proved(Path(sys.argv[1]))
