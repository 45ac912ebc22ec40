"""Files of many bundles in little room: what two of them share is kept once.

A piece is one tensor, or what is between two of them, or a file without tensors. It is named by its SHA-256.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path

import onnx

PIECES = "pieces.zip"
#: Smaller tensors inside an .onnx file stay with what is around them.
_MIN_SIZE = 1024


class Pieces:
    """Writes pieces into ``1/pieces.zip``, ``2/pieces.zip``, ... of a folder.

    Args:
        folder: where the numbered folders go.
        limit: bytes that the pieces in one of them may take.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._known: set[str] = set()
        self._count = 0
        self._size = 0
        self._zip = self._next()

    def begin(self) -> None:
        """Goes on in the next numbered folder."""
        self.close()
        self._zip = self._next()

    def close(self) -> None:
        """Ends the last folder."""
        self._zip.close()

    def add(self, folder: Path) -> dict[str, list[str]]:
        """The names of a folder's files -> their pieces, in order."""
        cuts: dict[Path, set[int]] = {}
        for model in folder.rglob("*.onnx"):
            for name, offset in _cuts(model):
                cuts.setdefault(model.with_name(name), set()).add(offset)
        return {
            path.relative_to(folder).as_posix(): [self._keep(piece) for piece in _cut(path, cuts.get(path, ()))]
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def _next(self) -> zipfile.ZipFile:
        self._count, self._size = self._count + 1, 0
        part = self._folder / str(self._count)
        part.mkdir(parents=True)
        return zipfile.ZipFile(part / PIECES, "w", zipfile.ZIP_DEFLATED)

    def _keep(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        if name not in self._known:
            self._known.add(name)
            if self._size + len(content) > self._limit:  # it may compress to less
                self.begin()
            self._zip.writestr(name, content)
            self._size += self._zip.getinfo(name).compress_size
        return name


def _cuts(model: Path) -> Iterator[tuple[str, int]]:
    """Where tensors begin and end: the file, the external one or the model's own, and the place in it."""
    content = model.read_bytes()
    for tensor in onnx.load_from_string(content).graph.initializer:
        said = {entry.key: entry.value for entry in tensor.external_data}
        if "location" in said:
            yield said["location"], int(said.get("offset", 0))
        elif len(tensor.raw_data) >= _MIN_SIZE:
            start = content.find(tensor.raw_data)
            yield from ((model.name, start), (model.name, start + len(tensor.raw_data)))


def _cut(path: Path, cuts: Collection[int]) -> Iterator[bytes]:
    content = path.read_bytes()
    for start, stop in pairwise([*sorted({0, *cuts} - {len(content)}), len(content)]):
        yield content[start:stop]
