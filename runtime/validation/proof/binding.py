"""What binds a proof to its bundle: what ``eptx.json`` says, with the hash of every file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle
from eptx.errors import BundleError, DataError
from eptx.files.strict_json import read_json_object
from eptx.manifest.names import MANIFEST_FILE
from eptx.runtime.validation.check import Check

#: What no validation reads.
_UNREAD = ("generator",)
_UNREAD_FILES = ("README.md",)
#: A bundle that differs here is another one.
_IDENTITY = ("fingerprints", "mode")
_CHANGED = "is not what was proved: it has changed since the proof was recorded"


def bound(bundle: Bundle) -> dict[str, Any]:
    """What a proof of a bundle says of it.

    Raises:
        BundleError: ``eptx.json`` cannot be read.
    """
    content = read_json_object(bundle.path / MANIFEST_FILE, error=BundleError)
    files = {name: entry for name, entry in content.pop("files").items() if name not in _UNREAD_FILES}
    return {name: value for name, value in content.items() if name not in _UNREAD} | {"files": files}


def check_same(proof: Path, wanted: Mapping[str, Any], bundle: Bundle) -> Iterator[Check]:
    """A check for everything that a bundle's proof is bound to.

    Raises:
        DataError: the proof is one of another bundle.
    """
    found = bound(bundle)
    other = next((name for name in _IDENTITY if found.get(name) != wanted.get(name)), None)
    if other is not None:
        raise DataError(
            f"{proof.name}: is the proof of another bundle: its {other} differs; record one of this bundle with "
            "eptx validate BUNDLE --record FILE"
        )
    for name in sorted({*found, *wanted} - {"files"}):
        yield Check(f"eptx.json {name}", "compared", None if found.get(name) == wanted.get(name) else _CHANGED)
    files, proved = found["files"], wanted["files"]
    for name in sorted({*files, *proved}):
        yield Check(name, "compared", None if files.get(name) == proved.get(name) else _CHANGED)
