"""What runs a bundle, on one line: the provider and the kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from eptx.cli.parts.common import printable


def print_runs_on(info: Mapping[str, Any], name: str = "") -> None:
    """Says on standard error what runs: `info` is what a session says of itself."""
    click.echo(printable(f"{name}: {runs_on(info)}" if name else runs_on(info)), err=True)


def runs_on(info: Mapping[str, Any]) -> str:
    """``provider cpu, native kernels``, or why there are no kernels, and which nodes the provider leaves."""
    from eptx.runtime.ort.providers import describe_nodes

    kernels, nodes = info["kernels"], info["nodes"]
    where = f"provider {info['provider']}" + (f" ({describe_nodes(nodes)})" if nodes else "")
    return f"{where}, native kernels" if kernels["running"] else f"{where}, no native kernels: {kernels['reason']}"
