"""The fp32 bundle that a quantized one is measured against: of the same base and adapter, with the same routes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from eptx.bundle import Bundle, BundleWriter, Manifest, read_bundle
from eptx.errors import UsageError
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.options import options_of
from eptx.exporter.steps.export import adapt, write
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.reference.files import ReferenceFiles


def export_fp32_baseline(
    manifest: Manifest, reference: ReferenceFiles, options: ValidateOptions, workspace: Path
) -> Bundle:
    """Exports a bundle again, in float32.

    Args:
        manifest: of the bundle.
        reference: what it was made from.
        options: of the validation.
        workspace: a folder that lives as long as the new bundle.

    Raises:
        UsageError: the base's ONNX file is not known, or is quantized itself.
    """
    if options.base_onnx is None and manifest.sources.base_onnx:
        raise UsageError("the base's ONNX file is not known here: give --base-onnx FILE, or --against BUNDLE")
    made = options_of(manifest)
    settings = replace(made, tasks=reference.names, top_k=reference.top_k, base_onnx=options.base_onnx)
    alone = not manifest.sources.base and options.base is None
    allowed = options.allow_pickle
    adapter = read_adapter(reference.folders, top_k=settings.top_k, tasks=settings.tasks, allow_pickle=allowed)
    with BundleWriter(workspace / "fp32") as writer, TemporaryDirectory(prefix="eptx-") as graphs:
        baseline = write(writer, adapt(None if alone else reference.base, adapter, settings, Path(graphs)))
    if baseline.manifest.precision != "fp32":
        raise UsageError("the base is quantized itself, so what that loses cannot be measured: give --against")
    return baseline


def read_fp32_baseline(manifest: Manifest, path: Path) -> Bundle:
    """Reads the fp32 bundle that the user gave.

    Raises:
        BundleError: it is damaged.
        UsageError: it is of other tasks, another base or another adapter, or not float32.
    """
    baseline = read_bundle(path)
    if baseline.manifest.precision != "fp32":
        raise UsageError(f"--against {path}: is {baseline.manifest.precision}; what is lost is measured from fp32")
    if [task.name for task in baseline.manifest.tasks] != [task.name for task in manifest.tasks]:
        raise UsageError(f"--against {path}: has other tasks than the bundle")
    differs = [what for what, own in manifest.fingerprints.items() if baseline.manifest.fingerprints.get(what) != own]
    if differs:
        raise UsageError(f"--against {path}: is of another {' and '.join(differs)} than the bundle")
    return baseline
