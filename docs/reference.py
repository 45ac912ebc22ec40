"""Writes the reference of the public Python API, made from the docstrings, as HTML.

    python docs/reference.py FOLDER

A public name without a docstring, and any warning of the generator, ends it with an error.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pdoc
import pdoc.render

#: What programs may import.
MODULES = (
    "eptx",
    "eptx.bundle",
    "eptx.errors",
    "eptx.exporter",
    "eptx.exporter.validation",
    "eptx.calibration",
    "eptx.peft",
    "eptx.runtime",
    "eptx.runtime.measure",
    "eptx.runtime.packaging",
    "eptx.runtime.serving",
)


def public(module: ModuleType) -> dict[str, Any]:
    """The functions and classes in a module's ``__all__``, or without one those that it defines, by name."""
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    found = {name: getattr(module, name) for name in names}
    return {name: value for name, value in found.items() if inspect.isroutine(value) or inspect.isclass(value)}


def undocumented(name: str, value: Any) -> Iterator[str]:
    """A public name, and the names of a class's methods and properties, of those that have no docstring."""
    text = inspect.getdoc(value) or ""
    if not text or text.startswith(f"{getattr(value, '__name__', name)}("):  # what a dataclass writes by itself
        yield name
    if inspect.isclass(value):
        for own, member in vars(value).items():
            if not own.startswith("_") and isinstance(member, property | staticmethod | classmethod | type(public)):
                yield from undocumented(f"{name}.{own}", getattr(value, own))


def main(folder: Path) -> None:
    missing = []
    for module in map(importlib.import_module, MODULES):
        names = public(module)
        vars(module).update(names)  # some are loaded when they are first used
        missing += [each for name, value in names.items() for each in undocumented(f"{module.__name__}.{name}", value)]
    if missing:
        raise SystemExit(f"no docstring: {', '.join(missing)}")
    warnings.simplefilter("error")
    # A TypedDict that extends another keeps no bases, so the generator cannot tell which keys are whose.
    warnings.filterwarnings("ignore", "Cannot determine where .* is taken from")
    # PEFT's own settings, whose types only PEFT's module can read.
    warnings.filterwarnings("ignore", r"Error parsing type annotation .* for eptx\.peft\.")
    pdoc.render.configure(docformat="google", footer_text="eptx")
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
