"""``eptx bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eptx.cli.parts.common import PATH, PROVIDER, output_options, print_json, provider_option
from eptx.cli.parts.runs_on import print_runs_on
from eptx.errors import UsageError


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--against", type=PATH, metavar="BUNDLE|FILE.onnx", help="Also time this one, interleaved, and print the ratio."
)
@click.option("--shapes", default="1x16,1x128,8x32", show_default=True, help="Batch x length, separated by commas.")
@click.option("--task", help="Task of every row (default: all tasks in turn).")
@click.option("--pairs", type=click.IntRange(min=1), default=20, show_default=True, help="Timed runs of each.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of ONNX Runtime.")
@provider_option
@click.option("--against-provider", type=PROVIDER, help="Provider of the other one (default: that of --provider).")
@output_options
def bench(
    bundle: Path,
    against: Path | None,
    shapes: str,
    task: str | None,
    pairs: int,
    threads: int | None,
    provider: str,
    against_provider: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Time a bundle, alone or against another in the same process."""
    from eptx.runtime.timing import TimedModel, task_ids, timed

    sizes = _shapes(shapes)
    model = TimedModel(bundle, task_ids=task_ids(bundle, task), threads=threads, provider=provider)
    other = None
    if against is not None:
        other = TimedModel(against, threads=threads, provider=against_provider or provider)
    elif against_provider is not None:
        raise UsageError("--against-provider is for --against BUNDLE")
    models = [model] if other is None else [model, other]
    rows = timed(model, other, sizes, pairs)
    if not quiet:
        for each in models:
            print_runs_on(each.info(), each.path.name)
    if as_json:
        print_json({"pairs": pairs, "threads": threads, "models": [each.info() for each in models], "rows": rows})
        return
    for row in rows:
        click.echo(_line(row))


def _shapes(text: str) -> list[tuple[int, int]]:
    shapes = []
    for part in text.split(","):
        batch, _, length = part.strip().partition("x")
        if not (batch.isdecimal() and length.isdecimal() and int(batch) and int(length)):
            raise UsageError(f"--shapes {text!r}: expected BATCHxLENGTH, such as 1x16,8x32")
        shapes.append((int(batch), int(length)))
    return shapes


def _line(row: dict[str, Any]) -> str:
    line = f"{row['shape']:>8}  {row['milliseconds']:8.2f} ms"
    if row["ratio"] is None:
        return line
    return f"{line}  against {row['against_milliseconds']:8.2f} ms  ratio {row['ratio']:.3f}"
