"""``eptx serve``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from eptx.cli.parts.common import PATH, check_is_bundle, provider_option
from eptx.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="[NAME=]BUNDLE...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--token-file", type=PATH, help="Bearer tokens, one per line; a request must bring one of them.")
@click.option("--tls-cert", type=PATH, help="Certificate chain in PEM.")
@click.option("--tls-key", type=PATH, help="Its key in PEM.")
@provider_option
@click.option("--threads", type=click.IntRange(min=1), help="Threads of ONNX Runtime.")
@click.option("--max-batch", type=int, default=32, show_default=True, help="Rows of one run and of one request.")
@click.option("--max-tokens", type=int, default=16384, show_default=True, help="Rows times tokens of one run.")
@click.option(
    "--max-delay-ms", type=float, default=2.0, show_default=True, help="How long an idle model waits for more."
)
@click.option("--generations", type=int, default=8, show_default=True, help="Answers generated in one batch.")
@click.option("--queue", type=int, default=1024, show_default=True, help="Rows that may wait for a model.")
@click.option("--max-body", type=int, default=16 << 20, show_default=True, help="Bytes of a request's body.")
@click.option("--max-text", type=int, default=256 << 10, show_default=True, help="Characters of a request's texts.")
@click.option("--max-connections", type=int, default=4096, show_default=True, help="Connections at once.")
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds that a request may take.")
@click.option("--read-timeout", type=float, default=30.0, show_default=True, help="Seconds to send headers, or a body.")
@click.option("--drain-timeout", type=float, default=30.0, show_default=True, help="Seconds to finish after SIGTERM.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def serve(bundles: tuple[str, ...], max_delay_ms: float, **options: Any) -> None:
    """Serve bundles over HTTP: the Open Inference Protocol v2, requests of all tasks in one batch.

    Language models also answer OpenAI's clients: every task is a model, NAME:TASK.

    A bundle is named by its folder unless it is given as NAME=BUNDLE. After SIGTERM the server answers the requests
    that it accepted, and ends. If a bundle is replaced on the disk, the server loads the new one without a pause.
    """
    named = name_bundles(bundles)
    for path in named.values():
        check_is_bundle(path)
    from eptx.runtime.serving import Limits
    from eptx.runtime.serving import serve as run

    limits = {field.name: options.pop(field.name) for field in fields(Limits) if field.name in options}
    run(named, Limits(max_delay=max_delay_ms / 1000, **limits), **options)


def name_bundles(given: Sequence[str]) -> dict[str, Path]:
    """Folders by name, from ``NAME=BUNDLE`` or ``BUNDLE``, whose name is that of the folder.

    Raises:
        UsageError: a name is given twice, or cannot be one.
    """
    named: dict[str, Path] = {}
    for text in given:
        name, path = _named(text)
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a model's name; give NAME={path}, of letters, digits, '.', '_' and '-'"
            )
        if name in named:
            raise UsageError(f"two bundles are named {name!r}; give one another name: NAME={path}")
        named[name] = path
    return named


def _named(text: str) -> tuple[str, Path]:
    name, equals, rest = text.partition("=")
    if equals and "/" not in name and not os.path.lexists(text):
        return name, Path(rest)
    return Path(os.path.abspath(text)).name, Path(text)
