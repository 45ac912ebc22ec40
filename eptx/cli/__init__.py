"""The ``eptx`` command: data on standard output, progress and errors on standard error, documented exit codes."""

from eptx.cli._main import cli, main

__all__ = ["cli", "main"]
