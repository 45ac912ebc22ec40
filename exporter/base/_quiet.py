"""Keeping third-party chatter off the streams while an export runs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Python warnings, loggers, progress bars of transformers and prints to stdout inside it.

    Exporters print their progress to stdout, which is for data, and log version drift that no user can act on.
    The settings are the process's, so this is not for code that runs beside other threads' logging.
    """
    from transformers.utils import logging as transformers_logging

    level, bars = logging.root.manager.disable, transformers_logging.is_progress_bar_enabled()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.disable(level)
            if bars:
                transformers_logging.enable_progress_bar()
