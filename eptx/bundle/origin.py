"""The file beside a bundle that says where its base, adapter and data are on this machine.

It is not part of the bundle: a bundle is copied and published, and paths of a disk are private. They would also make
bundles of the same inputs differ. `eptx validate` reads the file, so that the user need not name the sources again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eptx.bundle._reader import Bundle
from eptx.errors import UsageError
from eptx.files.fields import Fields
from eptx.files.publish import replace_file
from eptx.files.strict_json import dump_json, read_json

_SUFFIX = ".sources.json"


@dataclass(frozen=True)
class Origin:
    """What a bundle was made from, as absolute paths.

    Attributes:
        base: the transformers folder. base_onnx: the ONNX file of the base. None where there was none.
        adapters: the adapter's folders.
        data: where the rows are that a quantized bundle was measured on, as ``[TASK=]PATH``.
    """

    base: str | None = None
    base_onnx: str | None = None
    adapters: tuple[str, ...] = ()
    data: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        base: Path | None,
        base_onnx: Path | None,
        adapters: Sequence[Path],
        data: Sequence[tuple[str | None, Path]],
    ) -> Origin:
        """The origin for paths as the user gave them. Data comes with its task, where all its rows have one."""
        rows = [f"{task}={os.path.abspath(path)}" if task is not None else os.path.abspath(path) for task, path in data]
        return cls(_absolute(base), _absolute(base_onnx), tuple(map(os.path.abspath, adapters)), tuple(rows))


def write_origin(bundle: Bundle, origin: Origin) -> None:
    """Writes the file beside a bundle, in one step.

    Raises:
        UsageError, LimitError: it cannot be written.
    """
    replace_file(_file(bundle.path), dump_json({"bundle": dict(bundle.manifest.fingerprints), **asdict(origin)}))


def read_origin(bundle: Bundle) -> Origin:
    """What the file beside a bundle says; an empty origin where there is no file, or one of another bundle.

    Raises:
        UsageError: eptx did not write the file.
    """
    for path in _files(bundle.path):
        if path.is_file():
            found, said = _read(path)
            return found if said == dict(bundle.manifest.fingerprints) else Origin()
    return Origin()


def _read(path: Path) -> tuple[Origin, Mapping[str, Any]]:
    f = Fields(read_json(path, error=UsageError), where=path.name, error=UsageError)
    origin = Origin(
        base=f.string("base") if f.present("base") else None,
        base_onnx=f.string("base_onnx") if f.present("base_onnx") else None,
        adapters=f.string_list("adapters"),
        data=f.string_list("data"),
    )
    said = f.child("bundle").strings()
    f.done()
    return origin, said


def _files(bundle: Path) -> Iterator[Path]:
    """Where the file may be: beside the bundle's name, which may be a link, and beside the folder itself."""
    yield from dict.fromkeys((_file(bundle), _file(bundle.resolve())))


def _file(bundle: Path) -> Path:
    return bundle.with_name(f"{bundle.name}{_SUFFIX}")


def _absolute(path: Path | None) -> str | None:
    return os.path.abspath(path) if path is not None else None
