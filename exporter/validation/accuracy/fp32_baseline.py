"""The fp32 bundle that a quantized one is measured against: of the same base and adapter, with the same routes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from eptx.bundle import Bundle, BundleWriter, Manifest, read_bundle
from eptx.errors import UsageError
from eptx.exporter.export import adapt, write
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.options import options_of
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.reference.files import Truth


def fp32_twin(manifest: Manifest, truth: Truth, options: ValidateOptions, workspace: Path) -> Bundle:
    """Exports a bundle again, in float32.

    Args:
        manifest: of the bundle.
        truth: what it was made from.
        options: of the validation.
        workspace: a folder that lives as long as the twin.

    Raises:
        UsageError: the base's ONNX file is not known, or is quantized itself.
    """
    settings = replace(options_of(manifest), tasks=truth.names, base_onnx=_onnx(manifest, options))
    if options.top_k is not None:
        settings = replace(settings, top_k=options.top_k)
    alone = not manifest.sources.base and options.base is None
    adapter = read_adapter(truth.folders, top_k=settings.top_k, tasks=settings.tasks)
    with BundleWriter(workspace / "fp32") as writer, TemporaryDirectory(prefix="eptx-") as graphs:
        twin = write(writer, adapt(None if alone else truth.base, adapter, settings, Path(graphs)))
    if twin.manifest.precision != "fp32":
        raise UsageError("the base is quantized itself, so what that loses cannot be measured: give --against")
    return twin


def given_twin(manifest: Manifest, path: Path) -> Bundle:
    """The bundle that the user has.

    Raises:
        BundleError: it is damaged.
        UsageError: it is of other tasks, another base or another adapter, or not float32.
    """
    twin = read_bundle(path)
    if twin.manifest.precision != "fp32":
        raise UsageError(f"--against {path}: is {twin.manifest.precision}; what is lost is measured from fp32")
    if [task.name for task in twin.manifest.tasks] != [task.name for task in manifest.tasks]:
        raise UsageError(f"--against {path}: has other tasks than the bundle")
    differs = [what for what, own in manifest.fingerprints.items() if twin.manifest.fingerprints.get(what) != own]
    if differs:
        raise UsageError(f"--against {path}: is of another {' and '.join(differs)} than the bundle")
    return twin


def _onnx(manifest: Manifest, options: ValidateOptions) -> Path | None:
    if options.base_onnx is None and manifest.sources.base_onnx:
        raise UsageError("the base's ONNX file is not known here: give --base-onnx FILE, or --against BUNDLE")
    return options.base_onnx
