"""``eptx bench``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from eptx.cli.parts.common import PATH, PROVIDER, output_options, print_json, printable, provider_option
from eptx.cli.parts.runs_on import print_runs_on
from eptx.errors import UsageError
from eptx.reports.text_table import aligned

_RUNS = {"milliseconds": "ms", "against_milliseconds": "against ms", "ratio": "ratio"}
_SPEEDS = {
    "first_token_milliseconds": "first token ms",
    "prefill_tokens_per_second": "prefill tokens/s",
    "decode_tokens_per_second": "decode tokens/s",
}


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--against", type=PATH, metavar="BUNDLE|FILE.onnx", help="Also time this one, interleaved, and print the ratio."
)
@click.option("--shapes", default="1x16,1x128,8x32", show_default=True, help="Batch x length, separated by commas.")
@click.option("--task", help="Task of every row (default: all tasks in turn).")
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Timed runs of each; of a language model's answers a quarter as many.",
)
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
    """Time a bundle, alone or against another in the same process: medians, and the 10th and 90th percentiles.

    Of a language model a run is that of a whole prompt; then its answers are timed, in tokens a second.
    """
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
    given = [(bundle, provider), *([(against, against_provider or provider)] if against is not None else [])]
    answers = _answers(given, sizes, math.ceil(pairs / 4), task, threads)
    if not quiet:
        for each in models:
            print_runs_on(each.info(), each.path.name)
    if as_json:
        info = [each.info() for each in models]
        print_json({"pairs": pairs, "threads": threads, "models": info, "rows": rows, "answers": answers})
        return
    for line in ["medians (10th to 90th percentile)", *_runs(rows), *_speeds(answers)]:
        click.echo(line)


def _shapes(text: str) -> list[tuple[int, int]]:
    shapes = []
    for part in text.split(","):
        batch, _, length = part.strip().partition("x")
        if not (batch.isdecimal() and length.isdecimal() and int(batch) and int(length)):
            raise UsageError(f"--shapes {text!r}: expected BATCHxLENGTH, such as 1x16,8x32")
        shapes.append((int(batch), int(length)))
    return shapes


def _answers(
    given: list[tuple[Path, str]], shapes: list[tuple[int, int]], runs: int, task: str | None, threads: int | None
) -> list[dict[str, Any]]:
    """How fast the language models among the bundles answer, for each shape; empty where there are none."""
    from eptx.bundle import read_bundle

    bundles = [(read_bundle(path, verify=False), provider) for path, provider in given if path.suffix != ".onnx"]
    writers = [(bundle, provider) for bundle, provider in bundles if bundle.manifest.generation is not None]
    if not writers:
        return []
    from eptx.runtime import Session
    from eptx.runtime.measure.speed import generates, generation_speeds

    opened = [Session(bundle, provider, verify=False, threads=threads) for bundle, provider in writers]
    able = [session for session in opened if generates(session)]
    return [
        {"shape": f"{batch}x{length}", "model": str(session.bundle.path), **speeds}
        for batch, length in shapes
        for session, speeds in zip(able, generation_speeds(able, batch, length, runs, task), strict=True)
    ]


def _runs(rows: list[dict[str, Any]]) -> list[str]:
    names = [name for name in _RUNS if rows[0][name] is not None]
    cells = [[row["shape"], *(_spread(row, name) for name in names)] for row in rows]
    return aligned([["shape", *(_RUNS[name] for name in names)], *cells], "n" * (1 + len(names)))


def _speeds(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    names = [printable(Path(row["model"]).name) if _several(rows) else "" for row in rows]
    cells = [
        [row["shape"], *(_spread(row, key) for key in _SPEEDS), name] for row, name in zip(rows, names, strict=True)
    ]
    header = ["shape", *_SPEEDS.values(), "bundle" if _several(rows) else ""]
    return ["", *aligned([header, *cells], "nnnnt")]


def _several(rows: list[dict[str, Any]]) -> bool:
    """Whether the rows are of two models."""
    return len({row["shape"] for row in rows}) < len(rows)


def _spread(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "-"
    middle, low, high = (_number(row[key]) for key in (name, f"{name}_p10", f"{name}_p90"))
    return f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    """With three digits or more."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"
