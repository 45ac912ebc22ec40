"""Writes a bundle, or a report into a bundle, in one step."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from eptx.bundle._reader import UNLISTED, Bundle, read_bundle
from eptx.errors import BadInputError, BundleError, EptxError, UsageError
from eptx.files.publish import Staging, os_error, replace_file
from eptx.files.safe_files import hash_file, list_files, open_regular
from eptx.files.strict_json import dump_json, read_json_object
from eptx.manifest.content import FileEntry, Manifest
from eptx.manifest.names import MANIFEST_FILE, REPORT_FILES


class BundleWriter:
    """Writes a bundle beside its target and puts it in place in one step.

        with BundleWriter(target) as writer:
            ...  # write files into writer.folder, or with copy() and write()
            bundle = writer.finish(manifest)

    Leaving the block without `finish`, or by an error, leaves the target as it was and nothing else behind.

    Args:
        target: the bundle's folder: absent, empty, or an eptx bundle, which is replaced.

    Attributes:
        folder: where to write.

    Raises:
        UsageError: the target is something else, or cannot be written.
        LimitError: the disk is full.
    """

    def __init__(self, target: str | Path) -> None:
        self._target = Path(target)
        _check_replaceable(self._target)
        self._staging = Staging(self._target)
        self.folder = self._staging.folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._staging.close()

    def write(self, name: str, content: bytes | str) -> None:
        """Writes one file; text as UTF-8."""
        data = content.encode("utf-8") if isinstance(content, str) else content
        try:
            self._path(name).write_bytes(data)
        except OSError as e:
            raise os_error(self._target / name, e) from None

    def copy(self, source: Path, name: str | None = None, *, error: type[EptxError] = BadInputError) -> None:
        """Copies a regular file, under its own name unless another is given."""
        with open_regular(source, error=error) as origin:
            try:
                with open(self._path(name or source.name), "wb") as copy:
                    shutil.copyfileobj(origin, copy, 1 << 20)
            except OSError as e:
                raise os_error(self._target / (name or source.name), e) from None

    def finish(self, manifest: Manifest) -> Bundle:
        """Lists the files, writes ``eptx.json``, reads the result back, and puts the bundle in place.

        Args:
            manifest: everything but ``files``, which come from the folder.
        """
        files = {}
        for name in list_files(self.folder, error=BundleError):
            if name != MANIFEST_FILE:
                files[name] = FileEntry(*hash_file(self.folder / name, error=BundleError))
        manifest = replace(manifest, files=files)
        self.write(MANIFEST_FILE, dump_json(manifest.to_json()))
        written = read_bundle(self.folder, verify=False)
        _check_replaceable(self._target)
        self._staging.publish()
        return replace(written, path=self._target.absolute())

    def _path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def write_report(bundle: Bundle, name: str, content: bytes) -> Path:
    """Writes ``validation.json`` or ``report.html`` into a bundle, in one step.

    Raises:
        UsageError: the bundle cannot be written to.
        LimitError: the disk is full.
    """
    if name not in REPORT_FILES:
        raise ValueError(f"{name} is not one of {REPORT_FILES}")
    path = bundle.path / name
    replace_file(path, content)
    return path


def _check_replaceable(target: Path) -> None:
    """Refuses a target that holds anything but a bundle, so that no file of the user is lost."""
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"{target}: exists and is not a folder; choose another output")
    refused = UsageError(f"{target}: exists and is not an eptx bundle; choose another output or remove it")
    try:
        found = list_files(target, error=BundleError)
        if not found:
            return
        listed = read_json_object(target / MANIFEST_FILE, error=BundleError)["files"]
    except (BundleError, KeyError):
        raise refused from None
    foreign = sorted(name for name in found if not isinstance(listed, dict) or name not in {*listed, *UNLISTED})
    if foreign:
        raise UsageError(
            f"{target}: holds {foreign[0]!r}, which is not of the bundle; move it or choose another output"
        )
