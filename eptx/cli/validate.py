"""``eptx validate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eptx.cli.parts.calibration import points
from eptx.cli.parts.common import PATH, check_is_bundle, exporting, names, output_options, pickle_option, print_json
from eptx.errors import UsageError, ValidationError
from eptx.progress import shown

if TYPE_CHECKING:
    from eptx.runtime.validation.report.report import Report


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--base",
    type=PATH,
    metavar="DIR",
    help="The base's folder, or its id on the hub (default: as given at export).",
)
@click.option(
    "--adapter",
    "adapters",
    type=PATH,
    multiple=True,
    metavar="DIR",
    help="The adapter's folder or id on the hub (default: as given at export); several in the order of the tasks.",
)
@click.option("--tasks", help="Names of the adapter's tasks by id, separated by commas, where the bundle does not say.")
@click.option("--top-k", type=int, help="Experts per task (default: as given at export).")
@click.option("--model-class", metavar="NAME", help="Transformers class that was trained (default: as at export).")
@click.option("--labels", type=PATH, metavar="FILE.json", help="Names of the labels, where the export was given them.")
@click.option(
    "--base-onnx",
    type=PATH,
    metavar="FILE.onnx",
    help="ONNX file of the base, where the export used one: its fingerprint is compared.",
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    default=("auto",),
    show_default=True,
    metavar="NAME",
    help="Execution provider of ONNX Runtime, or auto for the CPU, and CUDA where it starts; may be repeated or "
    "separated by commas.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="[TASK=]PATH",
    help="Also validate on these texts (text, text_pair, task, label); labels give the tasks' metrics. A jsonl file "
    "or a dataset folder; may be repeated. A quantized bundle is measured on them, or else on the rows of its export.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    help="Rows used per task (default: 64; to measure what quantizing loses, as many as the export used).",
)
@click.option(
    "--max-drop",
    multiple=True,
    metavar="[TASK=]POINTS",
    help="Quantized bundles: points of its metric that a task may lose (default: what the bundle says); repeatable.",
)
@click.option(
    "--against",
    type=PATH,
    metavar="BUNDLE",
    help="Quantized bundles: the fp32 bundle to measure against (default: one is exported for it).",
)
@click.option(
    "--record",
    type=PATH,
    metavar="FILE",
    help="Write a proof of the bundle, if it passes: what another machine needs to validate it without PyTorch.",
)
@click.option(
    "--against-proof",
    type=PATH,
    metavar="FILE",
    help="Validate by a proof in place of the base and the adapter; only --provider goes with it.",
)
@pickle_option
@output_options
def validate(bundle: Path, as_json: bool, quiet: bool, against_proof: Path | None, **settings: Any) -> None:
    """Prove that a bundle computes what the trained model computes.

    The reference is the trained model, loaded as PEFT and transformers load it. It runs in float64 and in the export's
    own type; the distance between the two is the noise floor. The bundle's result must lie within a small multiple of
    it, in every task and adapted module: by the functions that the model holds for its own operators, and by native
    kernels where they are installed. Tables, the manifest and all files are compared with their sources. A bundle that
    generates runs on prompts and then token by token; the report says how often its greedy tokens are the reference's.
    A quantized bundle is compared with a reference of its own weights, and what they lose is measured against the fp32
    bundle and the budget.
    With --against-proof a bundle is validated by what --record has written, with numpy and ONNX Runtime alone.
    Writes validation.json and report.html into the bundle. Exits with 4 when the bundle fails.
    """
    settings["providers"] = [name for given in settings["providers"] for name in names(given) or []]
    report = (
        _by_proof(bundle, against_proof, quiet, settings)
        if against_proof is not None
        else _anew(bundle, quiet, settings)
    )
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(report.to_json())
    else:
        from eptx.runtime.validation.report.text import report_text

        click.echo(report_text(report))
    if not report.passed:
        raise ValidationError(report.reason)


def _anew(bundle: Path, quiet: bool, settings: dict[str, Any]) -> Report:
    check_is_bundle(bundle)
    with exporting(quiet):
        from eptx.exporter.adapters.label_names import read_labels
        from eptx.exporter.validation import ValidateOptions, validate_bundle
        from eptx.runtime.measure import Source

        settings["adapters"] = settings["adapters"] or None
        settings["labels"] = read_labels(settings["labels"]) if settings["labels"] else {}
        settings["tasks"] = names(settings["tasks"])
        settings["data"] = [Source.parse(text) for text in settings["data"]]
        settings["max_drop"] = points(settings["max_drop"])
        return validate_bundle(bundle, ValidateOptions(**settings))


def _by_proof(bundle: Path, proof: Path, quiet: bool, settings: dict[str, Any]) -> Report:
    providers = settings.pop("providers")
    given = next((name for name, value in settings.items() if value), None)
    if given is not None:
        flag = {"adapters": "adapter", "allow_pickle": "allow-pickle"}.get(given, given.replace("_", "-"))
        raise UsageError(f"--{flag} does not go with --against-proof: the proof stands for the base and the adapter")
    with shown(not quiet):
        from eptx.runtime.validation.proof.validate import validate_against_proof

        return validate_against_proof(bundle, proof, providers)
