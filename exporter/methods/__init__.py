"""Adapter methods, one folder each: whatever eptx knows of a method is in its folder, and a new method is a new folder.

A folder holds:

- ``method.py``: ``METHOD``, a `Method`: what an export, ``eptx inspect`` and a calibration must know.
- ``reference.py``: ``REFERENCE``, a `Reference`: the trained model in PyTorch, which validation compares bundles with.
  It shares no code with ``method.py``.

Both are made of the other files of the folder: ``adapter.py`` (what the files hold, as arrays), ``read.py`` (files to
that), ``fold.py`` (the algebra that puts one task into a weight), ``attach.py`` (operators into a graph),
``convert.py`` (from what released codes save to what is read) and, where PEFT has no tuner of the method,
``config.py``, ``layer.py`` and ``model.py``.

Beside the folders is what several share: ``one_folder.py`` for reading a folder of all tasks, ``constant.py`` and
``mixture.py`` for methods whose update is a constant of the task, ``routed.py`` for those whose modules have routers,
``formula.py`` and ``routed_formula.py`` for their references.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.util import find_spec
from types import ModuleType


def modules(name: str) -> list[ModuleType]:
    """The modules called `name` in the methods' folders, of those that have one, in the order of the folders' names."""
    folders = sorted(f"{__name__}.{found.name}" for found in pkgutil.iter_modules(__path__) if found.ispkg)
    return [importlib.import_module(f"{folder}.{name}") for folder in folders if find_spec(f"{folder}.{name}")]
