"""The results of a calibration so far, on disk: an interrupted one goes on where it stopped.

One JSON object a line, written at once; the first says what is calibrated. A last line that was cut off is dropped.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eptx.errors import DataError
from eptx.files.publish import os_error
from eptx.files.strict_json import parse_json

FILE = "trials.jsonl"


class TrialCache:
    """Results by name.

    Args:
        folder: where the file is; it is made.
        key: what is calibrated; results of something else are forgotten.

    Raises:
        UsageError, LimitError: the folder cannot be written.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self._known: dict[str, Any] = {}
        self._seconds: dict[str, list[float]] = defaultdict(list)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._read(folder / FILE, key)
        except OSError as error:
            raise os_error(folder, error) from None

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def mean_seconds(self, kind: str) -> float | None:
        """Of the results that were computed here and whose names begin with this word; None before the first."""
        spent = self._seconds[kind]
        return sum(spent) / len(spent) if spent else None

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of a name; a new one is computed and written down."""
        if name not in self._known:
            start = time.monotonic()
            result = compute()
            self._seconds[name.partition(" ")[0]].append(time.monotonic() - start)
            with (self.folder / FILE).open("ab") as file:
                file.write(_line({"name": name, "result": result}))
                file.flush()
                os.fsync(file.fileno())
            self._known[name] = result
        return self._known[name]

    def remove(self) -> None:
        """The calibration is finished: the next one starts anew."""
        (self.folder / FILE).unlink(missing_ok=True)

    def _read(self, path: Path, key: str) -> None:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        entries = [entry for line in lines[:-1] if (entry := _entry(line)) is not None]
        if not entries or entries[0].get("key") != key:
            entries = [{"key": key}]
        self._known = {entry["name"]: entry["result"] for entry in entries[1:]}
        path.write_bytes(b"".join(map(_line, entries)))


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = parse_json(line, what=FILE, error=DataError)
    except DataError:
        return None
    whole = isinstance(entry, dict) and (isinstance(entry.get("key"), str) or {"name", "result"} <= entry.keys())
    return entry if whole else None
