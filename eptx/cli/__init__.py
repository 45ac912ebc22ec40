"""The ``eptx`` command: data on standard output, progress and errors on standard error, documented exit codes."""

from eptx.cli._main import main

__all__ = ["main"]
