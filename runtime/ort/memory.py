"""Memory of models that nobody uses any more."""

from __future__ import annotations

import ctypes
import gc

#: Bytes of weights from which on two models in memory are one too many; of less, looking for them would take longer.
_LARGE = 1 << 28


def release_models(weights: int) -> None:
    """Frees models of so many bytes of weights that nobody uses any more, if that is much: hooks are cycles."""
    if weights > _LARGE:
        release_memory()


def release_memory() -> None:
    """Returns freed memory to the system, if the C library keeps it.

    glibc keeps what was freed in an arena of each thread. One thread loads a model and others use it, so a server that
    replaces bundles would grow by some of their size each time; and a validation, which has one model after another,
    would have two of them.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
