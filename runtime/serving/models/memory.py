"""Memory of models that were closed."""

from __future__ import annotations

import ctypes
import gc


def release_memory() -> None:
    """Returns freed memory to the system, if the C library keeps it.

    glibc keeps what was freed in an arena of each thread. One thread loads a model and others use it, so a server that
    replaces bundles would grow by some of their size each time.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
