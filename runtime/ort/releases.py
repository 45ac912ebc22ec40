"""Releases of ONNX Runtime, and what each of them is the first to load.

Tried with the wheels of 1.15.0 to 1.31.1, the first patch of each release that could be had: one model for each IR
version and opset. `make old-ort` tries them again. (ONNX Runtime's own table, docs/Versioning.md, says the same.) Older
ones do not read IR version 9.
"""

from __future__ import annotations

import re

from eptx.errors import NotSupportedError, UsageError

#: Major and minor number: what a release loads does not change with its patches.
Release = tuple[int, int]

OLDEST: Release = (1, 15)
#: The first that takes functions in a model. 1.15 gives the values of two calls one name in some graphs, and refuses
#: them ("Duplicate definition of name"); 1.14 crashes.
FUNCTIONS: Release = (1, 16)
#: The newest that these tables know.
NEWEST: Release = (1, 31)
#: The newest IR version and the newest opsets of ``ai.onnx`` that a release loads, where they are newer than before.
IR_VERSIONS: dict[Release, int] = {OLDEST: 9, (1, 18): 10, (1, 23): 11, (1, 24): 13}
OPSETS: dict[Release, int] = {
    OLDEST: 19,
    (1, 17): 20,
    (1, 18): 21,
    (1, 21): 22,
    (1, 23): 23,
    (1, 24): 25,
    (1, 25): 26,
}


def first(table: dict[Release, int], version: int) -> Release | None:
    """The first release that loads an IR version or an opset; None where no known one does."""
    return next((release for release, newest in sorted(table.items()) if version <= newest), None)


def shown(release: Release) -> str:
    """A release as people write it."""
    return f"{release[0]}.{release[1]}"


def read_release(text: str) -> Release | None:
    """The release of a version such as "1.17" or "1.17.3"; None if it is none."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})(?![0-9])", text, re.ASCII)
    return None if found is None else (int(found[1]), int(found[2]))


def asked_release(text: str) -> Release:
    """The release that an option names.

    Raises:
        UsageError: it names none.
        NotSupportedError: it is older than all that load a bundle.
    """
    release = read_release(text) if re.fullmatch(r"\d+(\.\d+){1,2}", text, re.ASCII) else None
    if release is None:
        raise UsageError(f"--min-ort {text!r}: give a release of ONNX Runtime, such as {shown(OLDEST)}")
    if release < OLDEST:
        raise NotSupportedError(f"--min-ort {text}: the oldest ONNX Runtime that runs bundles is {shown(OLDEST)}")
    return release
