"""What a session opens when it is first needed: once in a process, and anew in a child of that process."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from eptx.errors import UsageError

T = TypeVar("T")

_all: weakref.WeakSet[Opened[Any]] = weakref.WeakSet()


class Opened(Generic[T]):
    """Opens something when it is first needed; many threads may ask for it at once.

    A child of ``fork`` has none of its parent's threads, and what ONNX Runtime opened would wait for them when it ends.
    So the child leaves that alone for good, and opens its own.

    Args:
        make: opens it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._value: T | None = None
        self._closed = False
        self._lock = threading.Lock()
        _all.add(self)

    @property
    def value(self) -> T | None:
        """What is open; None if nothing is."""
        return self._value

    def get(self) -> T:
        """What is open, opened by this call if nothing was.

        Raises:
            UsageError: it was closed.
        """
        with self._lock:
            if self._closed:
                raise UsageError("the session is closed: open another")
            if self._value is None:
                self._value = self._make()
            return self._value

    def close(self) -> None:
        """Lets it go for good. Calls that use it end as usual, and it with the last of them."""
        with self._lock:
            self._closed, self._value = True, None

    def forget(self) -> None:
        """In a child of ``fork``: leaves what the parent opened as it is."""
        self._lock = threading.Lock()  # a thread of the parent may have held the other
        if self._value is not None:
            _keep_for_good(self._value)
            self._value = None


def _in_child() -> None:
    """What a child of ``fork`` does first."""
    for opened in list(_all):
        opened.forget()
    _leave_libraries()


def _leave_libraries() -> None:
    """Has this process end without what ONNX Runtime and GenAI do at the end: they wait for threads of the parent.

    (``onnxruntime`` 1.31 and ``onnxruntime-genai`` 0.18 start one when they are imported.) glibc's ``on_exit`` passes
    the exit status on to ``_exit``, when Python has closed all of its own; other systems have no such function. GenAI
    ends with a capsule in its module.
    """
    if "onnxruntime" not in sys.modules:
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc["_exit"], None)
    for value in vars(sys.modules.get("onnxruntime_genai.onnxruntime_genai", object)).values():
        if type(value).__name__ == "PyCapsule":
            _keep_for_good(value)


def _keep_for_good(value: object) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_in_child)
