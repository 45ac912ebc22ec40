"""Triton model repositories.

    REPOSITORY/
      <name>/
        config.pbtxt    Triton's configuration: tensors, batching, warm-up, the tasks
        kserve.yaml     the same model as a KServe service
        1/              the bundle as it is, of which Triton reads model.onnx and its weights

Since the version's folder is the bundle, ``eptx validate``, ``eptx run`` and ``eptx serve`` take it too.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from eptx.bundle import Bundle, Manifest, OnnxRuntime, read_bundle
from eptx.errors import BundleError, NotSupportedError, UsageError
from eptx.files.publish import Staging, os_error
from eptx.files.safe_files import list_files, open_regular
from eptx.files.strict_json import read_json_object
from eptx.manifest.names import MANIFEST_FILE, PAST, REPORT_FILES
from eptx.runtime.packaging._config import has_batch, model_config
from eptx.runtime.packaging._kserve import kserve_manifest
from eptx.runtime.packaging._releases import NEWEST_TRITON, oldest_triton
from eptx.runtime.packaging._text_format import text_format

_CONFIG, _KSERVE, _VERSION = "config.pbtxt", "kserve.yaml", "1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+")
_HEADER = "# Triton's configuration of an eptx bundle; packaging it again replaces this file.\n"
_NEEDS = "# Needs Triton {triton} or newer (ONNX Runtime {version}).\n"


@dataclass(frozen=True)
class TritonModel:
    """A model that was written into a repository.

    Attributes:
        path: its folder.
        name: its name.
        triton: the oldest release of Triton that loads it, such as "23.05"; None where that is not known.
        notes: what to know about it, each a sentence.
    """

    path: Path
    name: str
    triton: str | None
    notes: tuple[str, ...]


def package_triton(
    bundle: str | Path | Bundle,
    repository: str | Path,
    *,
    name: str | None = None,
    max_batch: int = 32,
    instances: int = 1,
    storage_uri: str | None = None,
) -> TritonModel:
    """Writes a bundle into a Triton model repository.

    The model's folder appears in one step, also if it replaces one that this function wrote. Nothing else in the
    repository is touched.

    Args:
        bundle: a bundle's folder, or the `Bundle` that `eptx.bundle.read_bundle` gave.
        repository: the repository's folder; made where it is missing.
        name: the model's name; the bundle's folder is called so unless told otherwise.
        max_batch: how many rows Triton may compute together.
        instances: how many sessions Triton opens on each device.
        storage_uri: where KServe will find the repository.

    Raises:
        NotSupportedError: the bundle generates text.
        BundleError: the bundle is damaged.
        UsageError: an argument is out of range, or something that is not ours is in the way.
        LimitError: the disk is full.
    """
    source = bundle if isinstance(bundle, Bundle) else read_bundle(bundle, verify=False)
    _check_supported(source.manifest)
    name = _checked_name(source, name)
    if max_batch < 1 or instances < 1:
        raise UsageError("the largest batch and the number of instances must be at least 1")
    if storage_uri is not None and not _URI.fullmatch(storage_uri):
        raise UsageError(f"{storage_uri!r} is no address for KServe; give one such as s3://bucket/folder")
    target = Path(repository) / name
    if target.absolute().resolve().is_relative_to(source.path.resolve()):
        raise UsageError(f"{target}: would lie in the bundle itself; choose another repository")
    _check_replaceable(target)
    needed = source.manifest.onnxruntime
    triton = None if needed is None else oldest_triton(needed)
    says = "" if needed is None else _NEEDS.format(triton=triton or f"after {NEWEST_TRITON}", version=needed.version)
    files = {
        _CONFIG: _HEADER + says + text_format(model_config(source.manifest, name, max_batch, instances)),
        _KSERVE: kserve_manifest(name, storage_uri, source.manifest.provider == "cuda", triton),
    }
    staging = Staging(target)
    try:
        _write(staging.folder, target, source, files)
        _check_replaceable(target)
        staging.publish()
    finally:
        staging.close()
    notes = (*_release_notes(needed, triton), *_notes(source.manifest, max_batch))
    return TritonModel(target, name, triton, notes)


def _write(folder: Path, target: Path, source: Bundle, files: dict[str, str]) -> None:
    """Writes our files, copies the bundle's, and checks the hashes of the copies."""
    try:
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
        for name in list_files(source.path, error=BundleError):
            copy = folder / _VERSION / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with open_regular(source.path / name, error=BundleError, follow=False) as origin, open(copy, "wb") as to:
                shutil.copyfileobj(origin, to, 1 << 20)
    except OSError as e:
        raise os_error(target, e) from None
    read_bundle(folder / _VERSION)


def _check_supported(manifest: Manifest) -> None:
    caches = any(spec.name.startswith(PAST) for spec in manifest.inputs)
    if manifest.generation is not None or manifest.encoder is not None or caches:
        kind = "an encoder-decoder" if manifest.encoder is not None else "a decoder"
        raise NotSupportedError(
            f"{kind} answers token by token, which a model of Triton's ONNX Runtime backend does not; use eptx serve"
        )


def _checked_name(bundle: Bundle, name: str | None) -> str:
    chosen = bundle.path.resolve().name if name is None else name
    if not _NAME.fullmatch(chosen):
        advice = "give another with --name" if name is None else "choose another"
        raise UsageError(f"{chosen!r} is no model name (letters, digits, '.', '_' and '-'); {advice}")
    return chosen


def _check_replaceable(target: Path) -> None:
    """Refuses to replace anything that this module did not write."""
    if not os.path.lexists(target):
        return
    refused = UsageError(f"{target}: exists and was not written by eptx; choose another --name or remove it")
    if target.is_symlink() or not target.is_dir():
        raise refused
    try:
        found = set(list_files(target, error=BundleError))
        if not found:
            return
        listed = read_json_object(target / _VERSION / MANIFEST_FILE, error=BundleError)["files"]
    except (BundleError, KeyError):
        raise refused from None
    if not isinstance(listed, dict):
        raise refused
    ours = {_CONFIG, _KSERVE, *(f"{_VERSION}/{name}" for name in (MANIFEST_FILE, *REPORT_FILES, *listed))}
    if found - ours:
        raise UsageError(f"{target}: holds {min(found - ours)!r}, which eptx did not write; move it or choose --name")


def _release_notes(needed: OnnxRuntime | None, triton: str | None) -> tuple[str, ...]:
    """What to know where no release of Triton is known to load the model."""
    if needed is None:
        return ("The bundle does not say which ONNX Runtime it needs: export it again to know which Triton loads it.",)
    if triton is None:
        return (f"No Triton up to {NEWEST_TRITON} has ONNX Runtime {needed.version}, which the bundle needs.",)
    return ()


def _notes(manifest: Manifest, max_batch: int) -> tuple[str, ...]:
    if not has_batch(manifest):
        return ("The model's batch is fixed, so Triton does not batch requests.",)
    if max_batch == 1:
        return ()
    if manifest.rows_share_route:
        return (
            "Routing is by batch, so a row's answer depends on the rows beside it: Triton is told not to batch "
            "requests. Export with --routing row to have it batch them.",
        )
    if manifest.quantization is not None and "int8" in manifest.quantization.products.values():
        return (
            "int8 takes the range of activations over the whole batch, so a row's answer depends a little on the rows "
            "beside it; int8-static does not.",
        )
    return ()
