"""``eptx package``."""

from __future__ import annotations

from pathlib import Path

import click

from eptx.cli.parts.common import PATH, output_options, print_json, printable


@click.group()
def package() -> None:
    """Write a bundle in the form that another server takes."""


@package.command()
@click.argument("bundle", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, metavar="REPO", help="Folder of the model repository.")
@click.option("--name", help="The model's name.  [default: the bundle's folder]")
@click.option("--max-batch", type=click.IntRange(1, 1 << 16), default=32, show_default=True, help="Rows in a batch.")
@click.option(
    "--instances", type=click.IntRange(1, 1 << 10), default=1, show_default=True, help="Sessions on each device."
)
@click.option("--storage-uri", metavar="URI", help="Where KServe will find the repository, for kserve.yaml.")
@output_options
def triton(
    bundle: Path,
    output: Path,
    name: str | None,
    max_batch: int,
    instances: int,
    storage_uri: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a model repository for Triton, and a manifest for KServe beside it."""
    from eptx.runtime.packaging import package_triton

    model = package_triton(bundle, output, name=name, max_batch=max_batch, instances=instances, storage_uri=storage_uri)
    if as_json:
        print_json(
            {
                "model": printable(str(model.path)),
                "name": model.name,
                "triton": model.triton,
                "notes": list(model.notes),
            }
        )
        return
    oldest = "" if model.triton is None else f" {model.triton} or newer"
    click.echo(f"{printable(str(model.path))}: model {model.name} for Triton{oldest}; kserve.yaml for KServe")
    for note in model.notes:
        click.echo(note)
