"""Memory of models that have gone."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Returns freed memory to the system, where the C library is one that keeps it.

    glibc keeps what was freed in an arena of each thread; a model is loaded by one thread and used by others, so a
    server that replaces bundles would grow by some of their size each time.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
