"""A bundle, opened and ready to answer requests."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eptx._json import read_json_object
from eptx._manifest import TASK_ID, TASK_ID_USED
from eptx.bundle import Bundle, Manifest, TensorSpec, read_bundle
from eptx.errors import BundleError, RequestError, UsageError
from eptx.runtime._checks import Limits, check_inputs
from eptx.runtime._providers import choose_provider, onnxruntime, open_session, wrapped
from eptx.runtime._tasks import TaskChooser
from eptx.runtime._tokenizer import Text, Tokenizer, is_text
from eptx.runtime.outputs import Array, Outputs

_ORT_DTYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class Session:
    """Runs a bundle with ONNX Runtime.

        session = Session("bundle")
        outputs = session.run(["a fine film", "a dull film"], task="sst2")
        outputs.labels, outputs.logits, outputs["last_hidden_state"]

    One session may be used from many threads at once.

    Args:
        bundle: a bundle's folder, or the `Bundle` that `eptx.bundle.read_bundle` gave.
        provider: ``cpu``, ``cuda``, or ``auto``: CUDA where it is there and the bundle was exported for it.
        threads: how many threads one operator may use; ONNX Runtime's choice when None.
        verify: whether to compare the files with their SHA-256 first.
        session_options: an ``onnxruntime.SessionOptions`` to use as it is instead of eptx's. It decides about native
            kernels too: register `kernel_library` on it to have them.

    Attributes:
        bundle: the bundle.
        provider: ``cpu`` or ``cuda``.

    Raises:
        BundleError: the bundle is damaged, or ONNX Runtime does not load its model.
        NotSupportedError: the provider is not on this machine, or ONNX Runtime is not installed.
        LimitError: there is not enough memory.
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        provider: str = "auto",
        *,
        threads: int | None = None,
        verify: bool = True,
        session_options: Any = None,
    ) -> None:
        if threads is not None and (type(threads) is not int or threads < 1):
            raise UsageError(f"threads must be a positive number, not {threads!r}")
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle, verify=verify)
        self.provider = choose_provider(provider, self.manifest.provider)
        self._ort, self._kernels = open_session(self.bundle, self.provider, threads, session_options)
        _check_signature(self._ort, self.manifest)
        self._limits = _limits(self.bundle)
        self._tasks = TaskChooser(self.manifest)
        self._output_names = [spec.name for spec in self.manifest.outputs]
        self._tokenizer: Tokenizer | None = None
        self._tokenizer_lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self.bundle.manifest

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return tuple(task.name for task in self.manifest.tasks)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph inputs."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph outputs."""
        return self.manifest.outputs

    def run(self, inputs: Mapping[str, Any] | Text, task: str | Sequence[str] | None = None) -> Outputs:
        """Answers one batch.

        Args:
            inputs: arrays by input name, each [batch, ...]; or one text, a list of texts, or a list of pairs
                of texts. Text longer than the model reads is cut, arrays that are longer are refused.
            task: one task name for all rows, or one per row. ``auto`` has the model infer each row's task,
                where the bundle can. None is ``auto`` there, and the only task where there is one.

        Raises:
            RequestError: the inputs or tasks do not fit the bundle; the message names which and why.
            NotSupportedError: text was given and the ``tokenizers`` package is not installed.
            LimitError: the batch needs more memory than there is.
        """
        if is_text(inputs):
            inputs = self._tokenize(inputs)
        elif not isinstance(inputs, Mapping):
            raise RequestError(f"inputs must be arrays by name or texts, not {type(inputs).__name__}")
        arrays = check_inputs(inputs, self.manifest, self._limits)
        batch = next(iter(arrays.values())).shape[0]
        ids = self._tasks.choose(task, inputs.get(TASK_ID), batch)
        if ids is not None:
            arrays[TASK_ID] = ids
        try:
            values = self._ort.run(self._output_names, arrays)
        except Exception as e:
            raise wrapped(e, "ONNX Runtime fails on this request", RequestError) from None
        outputs = dict(zip(self._output_names, values, strict=True))
        _check_rows(outputs, batch)
        return Outputs(outputs, self._tasks.rows(ids, outputs, batch))

    def info(self) -> dict[str, Any]:
        """What runs where, as JSON types.

        ``kernels`` says whether the model's own operators run as native kernels (``running``), and why not
        (``reason``): they are then computed by the functions that the model holds, to the same results.
        """
        manifest = self.manifest
        return {
            "bundle": str(self.bundle.path),
            "mode": manifest.mode,
            "method": manifest.method,
            "model_type": manifest.model_type,
            "precision": manifest.precision,
            "tasks": list(self.tasks),
            "inputs": [spec.name for spec in self.inputs],
            "outputs": [spec.name for spec in self.outputs],
            "provider": self.provider,
            "onnxruntime": onnxruntime().__version__,
            "kernels": {"running": self._kernels.library is not None, "reason": self._kernels.reason},
        }

    def _tokenize(self, text: Text) -> dict[str, Any]:
        with self._tokenizer_lock:
            if self._tokenizer is None:
                self._tokenizer = Tokenizer(self.bundle)
        return dict(self._tokenizer(text))


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


def _limits(bundle: Bundle) -> Limits:
    path = bundle.file("config.json")
    types = read_json_object(path, error=BundleError).get("type_vocab_size") if path is not None else None
    return Limits(
        vocabulary=bundle.manifest.vocab_size,
        token_types=types if type(types) is int and types > 0 else None,
        length=bundle.manifest.max_length,
    )
