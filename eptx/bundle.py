"""Bundles: folders that hold an adapted model and all that it needs to run.

`read_bundle` opens one and checks it; `BundleWriter` makes one and puts it in place in one step.

A bundle may come from anywhere, so reading trusts nothing in it: names stay inside the folder, every file is
plain and listed with its size and SHA-256, and the model may only use operators that ONNX Runtime or the
model itself defines. Not covered: a bundle that someone changes while it is being read, and a model that asks
for more memory or time than the machine has.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from eptx._genai_config import GENAI_CONFIG, check_genai_config
from eptx._json import dump_json, read_json, read_json_object
from eptx._manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    OPERATOR_DOMAIN,
    REPORT_FILES,
    Component,
    FileEntry,
    Generation,
    Manifest,
    ModuleOutput,
    Operators,
    Quantization,
    Sources,
    Task,
    TensorSpec,
    Text,
)
from eptx._onnx_scan import OnnxScan, scan_onnx
from eptx._publish import Staging, os_error
from eptx._safe_files import hash_file, is_contained_name, list_files, open_regular, replace_file
from eptx.errors import BadInputError, BundleError, EptxError, UsageError

__all__ = [
    "Bundle",
    "BundleWriter",
    "Component",
    "FileEntry",
    "Generation",
    "Manifest",
    "ModuleOutput",
    "Operators",
    "Quantization",
    "Sources",
    "Task",
    "TensorSpec",
    "Text",
    "read_bundle",
    "write_report",
]

# domains that ONNX Runtime implements by itself; EPContext, which makes it open a file by name, is refused
_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", OPERATOR_DOMAIN)
_REFUSED_OPERATORS = (("com.microsoft", "EPContext"),)
_UNLISTED = frozenset((MANIFEST_FILE, *REPORT_FILES, *(f".{name}.tmp" for name in REPORT_FILES)))


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose content was checked.

    Attributes:
        path: its folder.
        manifest: what ``eptx.json`` says.
        operators: the operators of domain ``ai.eptx`` that its models call.
    """

    path: Path
    manifest: Manifest
    operators: frozenset[str] = frozenset()

    @property
    def model(self) -> Path:
        """The model file."""
        return self.path / MODEL_FILE

    @property
    def size(self) -> int:
        """Bytes of all files that it lists."""
        return sum(entry.size for entry in self.manifest.files.values())

    def file(self, name: str) -> Path | None:
        """The path of a listed file, or None."""
        return self.path / name if name in self.manifest.files else None


def read_bundle(path: str | Path, *, verify: bool = True) -> Bundle:
    """Opens a bundle and checks it.

    Args:
        path: the folder.
        verify: whether to compare every file with its SHA-256, which reads all of it. Everything else is
            always checked.

    Raises:
        BundleError: the folder is not a bundle, is damaged or incomplete, holds something it must not, or is
            of a version that this eptx does not read.
    """
    folder = Path(path)
    if not os.path.isdir(folder):
        raise BundleError(f"{folder}: no such bundle" if not os.path.lexists(folder) else f"{folder}: not a folder")
    if not os.path.lexists(folder / MANIFEST_FILE):
        raise BundleError(f"{folder}: not an eptx bundle: it has no {MANIFEST_FILE}")
    found = list_files(folder, error=BundleError)
    manifest = Manifest.from_json(read_json(folder / MANIFEST_FILE, error=BundleError))
    _check_files(manifest.files, found)
    if verify:
        _check_hashes(folder, manifest.files)
    if GENAI_CONFIG in manifest.files:
        check_genai_config(read_json(folder / GENAI_CONFIG, error=BundleError))
    operators: set[str] = set()
    for name in manifest.files:
        if name.endswith(".onnx"):
            scan = scan_onnx(folder / name)
            _check_model(name, scan, manifest)
            operators |= {operator for domain, operator in scan.operators if domain == OPERATOR_DOMAIN}
    return Bundle(folder.absolute(), manifest, frozenset(operators))


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
        """Lists the files, writes ``eptx.json``, checks the result as a reader would, and puts the bundle in
        place.

        Args:
            manifest: all but its ``files``, which are taken from the folder.
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
    try:
        replace_file(path, content)
    except OSError as e:
        raise os_error(path, e) from None
    return path


def _check_files(listed: Mapping[str, FileEntry], found: Mapping[str, int]) -> None:
    for name, entry in listed.items():
        if name not in found:
            raise BundleError(f"{name}: missing; the bundle is incomplete")
        if found[name] != entry.size:
            raise BundleError(f"{name}: has {found[name]} bytes; {MANIFEST_FILE} says {entry.size}")
    for name in found:
        if name not in listed and name not in _UNLISTED:
            raise BundleError(f"{name!r}: not listed in {MANIFEST_FILE}; remove it or export again")


def _check_hashes(folder: Path, listed: Mapping[str, FileEntry]) -> None:
    for name, entry in listed.items():
        if hash_file(folder / name, error=BundleError, follow=False) != (entry.size, entry.sha256):
            raise BundleError(f"{name}: its content does not match its SHA-256; the file was changed or damaged")


def _check_model(name: str, scan: OnnxScan, manifest: Manifest) -> None:
    own = {domain for domain, _ in scan.functions}
    for domain in sorted({d for d, _ in scan.opsets} | {d for d, _ in scan.operators}):
        if domain not in _KNOWN_DOMAINS and domain not in own:
            raise BundleError(f"{name}: uses operators of the unknown domain {domain!r}")
    for operator in _REFUSED_OPERATORS:
        if operator in scan.operators:
            raise BundleError(f"{name}: uses {operator[1]}, which opens files by name")
    versions = {v for d, v in scan.opsets if d == OPERATOR_DOMAIN}
    expected = {manifest.operators.version} if manifest.operators else set()
    # of an encoder-decoder, one part may be as the base has it
    if versions != expected and not (manifest.encoder is not None and not versions):
        raise BundleError(
            f"{name}: imports {OPERATOR_DOMAIN} {_versions(versions)}; {MANIFEST_FILE} says {_versions(expected)}"
        )
    _check_external(name, scan, manifest.files)


def _check_external(name: str, scan: OnnxScan, listed: Mapping[str, FileEntry]) -> None:
    folder = name.rpartition("/")[0]
    for data in scan.external:
        location = f"{folder}/{data.location}" if folder else data.location
        if not is_contained_name(data.location) or location not in listed:
            raise BundleError(f"{name}: keeps weights in {data.location!r}, which is not a file of the bundle")
        size = listed[location].size
        if data.offset + (data.length or 0) > size:
            raise BundleError(f"{name}: a weight lies past the end of {location} ({size} bytes)")


def _check_replaceable(target: Path) -> None:
    """Refuses to put a bundle in the place of anything that somebody could miss."""
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
    foreign = sorted(name for name in found if not isinstance(listed, dict) or name not in {*listed, *_UNLISTED})
    if foreign:
        raise UsageError(
            f"{target}: holds {foreign[0]!r}, which is not of the bundle; move it or choose another output"
        )


def _versions(versions: set[int]) -> str:
    return "version " + ", ".join(map(str, sorted(versions))) if versions else "not at all"
