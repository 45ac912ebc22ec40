"""``eptx validate``."""

from __future__ import annotations

from pathlib import Path

import click

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
    help="The adapter (default: as given at export); several LoRA folders in the order of the tasks.",
)
@click.option("--tasks", help="Names of the adapter's tasks by id, separated by commas, where the bundle does not say.")
@click.option("--top-k", type=int, help="EPT: experts per task (default: as given at export).")
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
    type=PATH,
    metavar="FILE.jsonl",
    help="Also validate on these texts (text, text_pair, task, label); labels give the tasks' metrics.",
)
@click.option("--rows", type=click.IntRange(min=1), default=64, show_default=True, help="Rows of --data used per task.")
@output_options
def validate(
    bundle: Path,
    base: Path | None,
    adapters: tuple[Path, ...],
    tasks: str | None,
    top_k: int | None,
    base_onnx: Path | None,
    providers: tuple[str, ...],
    data: Path | None,
    rows: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Prove that a bundle computes what the trained model computes.

    The PyTorch reference runs in float64 and in the export's own type; their distance is the noise floor, and the
    ONNX result must lie within a small multiple of it, in every task and adapted module. A bundle that generates is
    fed prompts and then token by token, and how often its greedy tokens are the reference's is told. Writes
    validation.json and report.html into the bundle. Exits with 4 when the bundle fails.
    """
    with exporting(quiet):
        from eptx.exporter.validation import ValidateOptions, report_table, validate_bundle

        report = validate_bundle(
            bundle,
            ValidateOptions(
                base=base,
                adapters=adapters or None,
                tasks=names(tasks),
                top_k=top_k,
                base_onnx=base_onnx,
                providers=[name for given in providers for name in (names(given) or [])],
                data=data,
                rows=rows,
            ),
        )
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(report_table(report))
    if not report.passed:
        raise ValidationError(report.reason)
