"""Keeping third-party chatter off the streams while an export runs."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Python warnings, loggers, progress bars of transformers and prints to stdout inside it.

    Exporters print their progress to stdout, which is for data, and log version drift that no user can act
    on. The settings are the process's, so this is not for code that runs beside other threads' logging.
    """
    from transformers.utils import logging as hf_logging

    bars: Any = hf_logging  # transformers annotates a part of its functions
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with _silent():
            yield
    finally:
        if shown:
            bars.enable_progress_bar()


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """The same of huggingface_hub, without transformers, which takes longer to import than a folder to find."""
    bars: Any = importlib.import_module("huggingface_hub.utils")  # it annotates none of these

    shown = not bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    try:
        with _silent():
            yield
    finally:
        if shown:
            bars.enable_progress_bars()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)
