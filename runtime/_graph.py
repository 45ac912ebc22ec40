"""A bundle's ``model.onnx`` in ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from eptx._manifest import TASK_ID_USED
from eptx.bundle import Bundle, Manifest
from eptx.errors import BundleError, RequestError
from eptx.runtime._integers import said
from eptx.runtime._kernels import Kernels, choose_kernels
from eptx.runtime._providers import open_session, wrapped
from eptx.runtime.outputs import Array

_ORT_DTYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class Graph:
    """The model, opened when it is first needed: a generator's weights need not be in memory twice.

    Args:
        bundle: a checked bundle.
        provider: ``cpu`` or ``cuda``.
        threads: how many threads one operator may use; None lets ONNX Runtime choose.
        options: an ``onnxruntime.SessionOptions`` to use as it is instead of eptx's, or None.
    """

    def __init__(self, bundle: Bundle, provider: str, threads: int | None, options: Any) -> None:
        self._bundle = bundle
        self._how = (provider, threads, options)
        self._names = [spec.name for spec in bundle.manifest.outputs]
        self._opened: tuple[Any, Kernels] | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether it has been needed."""
        return self._opened is not None

    @property
    def kernels(self) -> Kernels:
        """What runs the model's own operators; before it is open, what is meant to."""
        return self._opened[1] if self._opened is not None else choose_kernels(self._bundle, self._how[0])

    @property
    def integers(self) -> str:
        """How it runs products of 8-bit integers."""
        return said(self._how[0], own_options=self._how[2] is not None)

    def open(self) -> Any:
        """The ``onnxruntime.InferenceSession``.

        Raises:
            BundleError: ONNX Runtime does not load the model, or it is not what ``eptx.json`` says.
            NotSupportedError: CUDA does not start on this machine.
            LimitError: there is not enough memory.
        """
        with self._lock:
            if self._opened is None:
                opened = open_session(self._bundle, *self._how)
                _check_signature(opened[0], self._bundle.manifest)
                self._opened = opened
            return self._opened[0]

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name.

        Raises:
            RequestError: ONNX Runtime fails on the arrays.
            LimitError: the batch needs more memory than there is.
        """
        session = self.open()
        try:
            values = session.run(self._names, arrays)
        except Exception as e:  # ONNX Runtime has a dozen exception classes and no common one
            raise wrapped(e, "ONNX Runtime fails on this request", RequestError) from None
        outputs = dict(zip(self._names, values, strict=True))
        _check_rows(outputs, next(iter(arrays.values())).shape[0])
        return outputs


def _check_signature(session: Any, manifest: Manifest) -> None:
    """The model must have the inputs and outputs of ``eptx.json``, which requests are checked against."""
    for what, specs, values in (
        ("input", manifest.inputs, session.get_inputs()),
        ("output", manifest.outputs, session.get_outputs()),
    ):
        said = {spec.name: (spec.dtype, len(spec.shape)) for spec in specs}
        try:
            has = {value.name: (_ORT_DTYPES.get(value.type, value.type), len(value.shape)) for value in values}
        except UnicodeDecodeError:  # ONNX Runtime keeps the bytes of a file, and gives them out here
            raise BundleError(f"the model has an {what} whose name or dimension's name is not UTF-8") from None
        for name in sorted({*said, *has}):
            if said.get(name) != has.get(name):
                raise BundleError(f"the model's {what} {name!r} is not what eptx.json says")


def _check_rows(outputs: Mapping[str, Array], batch: int) -> None:
    for name in ("logits", TASK_ID_USED):
        if name in outputs and outputs[name].shape[:1] != (batch,):
            raise BundleError(f"the model's output {name} has shape {list(outputs[name].shape)} for a batch of {batch}")
