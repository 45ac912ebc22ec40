"""Keeping third-party chatter off the streams while an export runs."""

from __future__ import annotations

import contextlib
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
    level, shown = logging.root.manager.disable, bars.is_progress_bar_enabled()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        bars.disable_progress_bar()
        try:
            yield
        finally:
            logging.disable(level)
            if shown:
                bars.enable_progress_bar()
