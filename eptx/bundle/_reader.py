"""Opens bundles and checks them, trusting nothing in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eptx.bundle.genai_config import GENAI_CONFIG, check_genai_config
from eptx.bundle.onnx_scan import OnnxScan, scan_bytes, scan_onnx
from eptx.errors import BundleError
from eptx.files.safe_files import hash_file, is_contained_name, list_files
from eptx.files.strict_json import read_json
from eptx.manifest.content import FileEntry, Manifest
from eptx.manifest.names import MANIFEST_FILE, MODEL_FILE, OPERATOR_DOMAIN, ORT_DOMAINS, REPORT_FILES
from eptx.manifest.reader import read_manifest

#: EPContext makes ONNX Runtime open a file by name.
_REFUSED_OPERATORS = (("com.microsoft", "EPContext"),)
#: Files of a bundle that ``eptx.json`` does not list.
UNLISTED = frozenset((MANIFEST_FILE, *REPORT_FILES, *(f".{name}.tmp" for name in REPORT_FILES)))


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
    manifest = read_manifest(read_json(folder / MANIFEST_FILE, error=BundleError))
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


def _check_files(listed: Mapping[str, FileEntry], found: Mapping[str, int]) -> None:
    for name, entry in listed.items():
        if name not in found:
            raise BundleError(f"{name}: missing; the bundle is incomplete")
        if found[name] != entry.size:
            raise BundleError(f"{name}: has {found[name]} bytes; {MANIFEST_FILE} says {entry.size}")
    for name in found:
        if name not in listed and name not in UNLISTED:
            raise BundleError(f"{name!r}: not listed in {MANIFEST_FILE}; remove it or export again")


def _check_hashes(folder: Path, listed: Mapping[str, FileEntry]) -> None:
    for name, entry in listed.items():
        if hash_file(folder / name, error=BundleError, follow=False) != (entry.size, entry.sha256):
            raise BundleError(f"{name}: its content does not match its SHA-256; the file was changed or damaged")


def check_graph(name: str, data: bytes, manifest: Manifest) -> None:
    """Refuses a graph, or a part of one, that reads or runs what a model of the bundle may not.

    Args:
        name: the file that it stands for.
        data: a serialized ``ModelProto``.
        manifest: of the bundle.

    Raises:
        BundleError: it does, or is damaged.
    """
    try:
        scan = scan_bytes(data)
    except BundleError as e:
        raise BundleError(f"{name}: {e}") from None
    _check_part(name, scan, manifest)


def _check_part(name: str, scan: OnnxScan, manifest: Manifest) -> None:
    own = {domain for domain, _ in scan.functions}
    for domain in sorted({d for d, _ in scan.opsets} | {d for d, _ in scan.operators}):
        if domain not in (*ORT_DOMAINS, OPERATOR_DOMAIN) and domain not in own:
            raise BundleError(f"{name}: uses operators of the unknown domain {domain!r}")
    for operator in _REFUSED_OPERATORS:
        if operator in scan.operators:
            raise BundleError(f"{name}: uses {operator[1]}, which opens files by name")
    _check_external(name, scan, manifest.files)


def _check_model(name: str, scan: OnnxScan, manifest: Manifest) -> None:
    _check_part(name, scan, manifest)
    versions = {v for d, v in scan.opsets if d == OPERATOR_DOMAIN}
    expected = {manifest.operators.version} if manifest.operators else set()
    # one of the two models of an encoder-decoder may hold no part of the adapter
    if versions != expected and not (manifest.encoder is not None and not versions):
        raise BundleError(
            f"{name}: imports {OPERATOR_DOMAIN} {_versions(versions)}; {MANIFEST_FILE} says {_versions(expected)}"
        )


def _check_external(name: str, scan: OnnxScan, listed: Mapping[str, FileEntry]) -> None:
    folder = name.rpartition("/")[0]
    for data in scan.external:
        location = f"{folder}/{data.location}" if folder else data.location
        if not is_contained_name(data.location) or location not in listed:
            raise BundleError(f"{name}: keeps weights in {data.location!r}, which is not a file of the bundle")
        size = listed[location].size
        if data.offset + (data.length or 0) > size:
            raise BundleError(f"{name}: a weight lies past the end of {location} ({size} bytes)")


def _versions(versions: set[int]) -> str:
    return "version " + ", ".join(map(str, sorted(versions))) if versions else "not at all"
