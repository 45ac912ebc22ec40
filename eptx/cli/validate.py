"""``eptx validate``."""

from __future__ import annotations

from pathlib import Path

import click

from eptx.cli._calibration import points
from eptx.cli._common import PATH, exporting, names, output_options, print_json
from eptx.errors import ValidationError


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--base", type=PATH, metavar="DIR", help="Transformers folder of the base (default: as given at export).")
@click.option(
    "--adapter",
    "adapters",
    type=PATH,
    multiple=True,
    metavar="DIR",
    help="The adapter (default: as given at export); several folders in the order of the tasks.",
)
@click.option("--tasks", help="Names of the adapter's tasks by id, separated by commas, where the bundle does not say.")
@click.option("--top-k", type=int, help="Experts per task (default: as given at export).")
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
    help="cpu, cuda, or auto for all that this machine has; may be repeated or separated by commas.",
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
@output_options
def validate(
    bundle: Path,
    base: Path | None,
    adapters: tuple[Path, ...],
    tasks: str | None,
    top_k: int | None,
    base_onnx: Path | None,
    providers: tuple[str, ...],
    data: tuple[str, ...],
    rows: int | None,
    max_drop: tuple[str, ...],
    against: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Prove that a bundle computes what the trained model computes.

    The trained model is loaded as PEFT and transformers load it. It runs in float64 and in the export's own type;
    their distance is the noise floor, and the ONNX result must lie within a small multiple of it, in every task and
    adapted module: by the functions that the model holds for its own operators, and by native kernels where they are
    installed. Tables, the manifest and all files are compared with their sources. A bundle that generates is
    fed prompts and then token by token, and how often its greedy tokens are the reference's is told. Of a quantized
    bundle that is proven of its own weights, and what they lose is measured against the fp32 bundle and the budget.
    Writes validation.json and report.html into the bundle. Exits with 4 when the bundle fails.
    """
    with exporting(quiet):
        from eptx.exporter.validation import ValidateOptions, report_text, validate_bundle
        from eptx.runtime.measure import Source

        report = validate_bundle(
            bundle,
            ValidateOptions(
                base=base,
                adapters=adapters or None,
                tasks=names(tasks),
                top_k=top_k,
                base_onnx=base_onnx,
                providers=[name for given in providers for name in (names(given) or [])],
                data=[Source.parse(text) for text in data],
                rows=rows,
                max_drop=points(max_drop),
                against=against,
            ),
        )
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(report_text(report))
    if not report.passed:
        raise ValidationError(report.reason)
