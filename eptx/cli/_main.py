"""The command group, and how errors become one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback

import click

from eptx._version import __version__
from eptx.cli.add import add
from eptx.cli.bench import bench
from eptx.cli.calibrate import calibrate
from eptx.cli.convert import convert
from eptx.cli.export import export
from eptx.cli.inspect import inspect
from eptx.cli.package import package
from eptx.cli.parts.common import printable
from eptx.cli.remove import remove
from eptx.cli.run import run
from eptx.cli.serve import serve
from eptx.cli.validate import validate
from eptx.errors import BadInputError, EptxError, LimitError
from eptx.files.publish import FULL
from eptx.providers import keep_private

_INTERRUPTED = 130
_LONGEST = 1000


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="eptx")
def cli() -> None:
    """Multi-task adapters (EPT, TuckA, LoRA) as ONNX models that run anywhere ONNX Runtime runs.

    \b
    Exit codes: 0 done; 1 internal error; 2 usage; 3 bad input; 4 validation failed;
    5 not supported; 6 a limit was hit.
    """


for _command in (export, convert, add, remove, validate, calibrate, inspect, run, serve, bench, package):
    cli.add_command(_command)


def main() -> None:
    """Runs the command line and exits; errors are one line, never a traceback (set EPTX_DEBUG=1 for one)."""
    _print_warnings()
    keep_private()
    try:
        code = cli.main(standalone_mode=False)
        if sys.stdout is not None:  # closed by the shell
            sys.stdout.flush()
    except SystemExit:
        code = 0  # click ends so when what reads the output has gone
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        code = _report(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        code = _report("interrupted", _INTERRUPTED)
    except EptxError as error:
        code = _report(str(error), error.exit_code)
    except MemoryError:
        code = _report("out of memory", LimitError.exit_code)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  what reads the output has gone; the exit must not fail on it
        code = 0
    except OSError as error:
        code = _report(f"{error.filename or 'output'}: {error.strerror or error}", _code_of(error))
    except Exception as error:
        code = _report(f"internal error: {type(error).__name__}: {error}; set EPTX_DEBUG=1 for the details", 1)
    sys.exit(code or 0)


def _print_warnings() -> None:
    """Prints what eptx's modules warn of as ``warning: ...``; `serve` has a log of its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    logging.getLogger("eptx.runtime").handlers = [handler]


def _report(message: str, code: int) -> int:
    if os.environ.get("EPTX_DEBUG"):
        traceback.print_exc()
    line = printable(" ".join(message.split()))
    click.echo(f"error: {line if len(line) <= _LONGEST else line[:_LONGEST] + '...'}", err=True)
    return code


def _code_of(error: OSError) -> int:
    """The exit code of an error that no other handler met: a path that the system refuses, or a full disk."""
    return LimitError.exit_code if error.errno in FULL else BadInputError.exit_code
