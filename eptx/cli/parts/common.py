"""What several commands share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unicodedata import category

import click

from eptx.bundle import read_bundle
from eptx.errors import NotSupportedError
from eptx.files.strict_json import dump_json
from eptx.manifest.names import MANIFEST_FILE
from eptx.progress import shown
from eptx.providers import PROVIDER_CHOICES

_UNPRINTABLE = frozenset(("Cc", "Cs", "Zl", "Zp"))

F = TypeVar("F", bound=Callable[..., Any])

#: Paths are checked where they are read, so that every error has eptx's wording and exit code.
PATH = click.Path(path_type=Path)

#: Where a bundle runs.
PROVIDER = click.Choice(PROVIDER_CHOICES)
provider_option = click.option(
    "--provider",
    type=PROVIDER,
    default="auto",
    show_default=True,
    help="Execution provider of ONNX Runtime; auto is the one that the bundle was exported for, or else the CPU.",
)


def output_options(command: F) -> F:
    """``--json`` and ``--quiet``, which every verb has."""
    command = click.option("--quiet", "-q", is_flag=True, help="No progress on standard error.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


#: Pickles are read on request only.
pickle_option = click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read an adapter's adapter_model.bin where it has no safetensors, with torch's weights_only loader. Only for "
    "files that you trust.",
)


@contextmanager
def exporting(quiet: bool) -> Iterator[None]:
    """A block that needs the exporter; shows progress, and none of what the libraries under it log.

    Raises:
        NotSupportedError: the packages that exporting needs are not installed.
    """
    level = logging.root.manager.disable
    with shown(not quiet):
        logging.disable(logging.CRITICAL)
        try:
            yield
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("eptx"):
                raise
            raise NotSupportedError(f"this needs {error.name}: pip install 'eptx[export]'") from None
        finally:
            logging.disable(level)


def check_is_bundle(path: Path) -> None:
    """Says that a folder is no bundle before anything large is imported for it.

    Raises:
        BundleError: it is none.
    """
    if not (path / MANIFEST_FILE).is_file():
        read_bundle(path, verify=False)  # which says what is wrong with it


def printable(text: str) -> str:
    """Text from files and paths for a terminal: control characters and what is not Unicode as escapes."""
    return "".join(c.encode("unicode_escape").decode() if category(c) in _UNPRINTABLE else c for c in text)


def print_json(value: Any) -> None:
    """A value as JSON on standard output."""
    click.echo(dump_json(value).decode(), nl=False)


def names(text: str | None) -> list[str] | None:
    """A comma-separated list of names."""
    return None if text is None else [name.strip() for name in text.split(",")]
