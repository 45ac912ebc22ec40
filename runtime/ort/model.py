"""A bundle's ``model.onnx`` in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eptx.bundle import Bundle, Manifest, TensorSpec
from eptx.errors import BundleError, RequestError
from eptx.manifest.names import LOGITS, PAST, TASK_ID_USED
from eptx.providers import CPU
from eptx.runtime.ort.integers import describe_integer_products
from eptx.runtime.ort.kernels import Kernels, choose_kernels
from eptx.runtime.ort.opened import Opened
from eptx.runtime.ort.providers import nodes_by_provider, onnxruntime
from eptx.runtime.ort.sessions import open_bundle, wrapped_errors
from eptx.runtime.outputs import Array

_ORT_DTYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}

#: A batch of so many tokens or pixels takes so long that it may give its memory back to the system at its end, which
#: ONNX Runtime would keep: 700 MB after 32 rows of 500 tokens in MiniLM. `python -m tests.bench.give_back` measures it.
_LARGE = 4096


class OrtModel:
    """The model, opened when it is first needed, so that a generator's weights are not in memory twice.

    Args:
        bundle: a checked bundle.
        provider: eptx's name of it.
        threads: how many threads one operator may use; None lets ONNX Runtime choose.
        options: an ``onnxruntime.SessionOptions`` to use as it is instead of eptx's, or None.
    """

    def __init__(self, bundle: Bundle, provider: str, threads: int | None, options: Any) -> None:
        self._bundle = bundle
        self._how = (provider, threads, options)
        self._names = [spec.name for spec in bundle.manifest.outputs]
        self._opened = Opened(self._open)

    @property
    def is_open(self) -> bool:
        """Whether the model is open."""
        return self._opened.value is not None

    @property
    def kernels(self) -> Kernels:
        """What runs the model's own operators, or will run them once it is open."""
        opened = self._opened.value
        return opened[1] if opened is not None else choose_kernels(self._bundle, self._how[0])

    @property
    def nodes(self) -> dict[str, int] | None:
        """How many nodes run on which provider; None if the CPU was asked for, or the model is not open yet."""
        opened = self._opened.value
        return nodes_by_provider(opened[0]) if opened is not None else None

    @property
    def integers(self) -> str:
        """How it runs products of 8-bit integers."""
        return describe_integer_products(self._how[0], own_options=self._how[2] is not None)

    def open(self) -> Any:
        """The ``onnxruntime.InferenceSession``.

        Raises:
            BundleError: ONNX Runtime does not load the model, or it is not what ``eptx.json`` says.
            NotSupportedError: the provider does not start on this machine, or takes no node of the model.
            LimitError: there is not enough memory.
            UsageError: it was closed.
        """
        return self._opened.get()[0]

    def close(self) -> None:
        """Lets the model go for good."""
        self._opened.close()

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name.

        Raises:
            RequestError: ONNX Runtime fails on the arrays.
            LimitError: the batch needs more memory than there is.
        """
        session = self.open()
        with wrapped_errors("ONNX Runtime fails on this request", RequestError):
            values = session.run(self._names, arrays, self._run_options(arrays))
        outputs = dict(zip(self._names, values, strict=True))
        _check_outputs(outputs, self._bundle.manifest, next(iter(arrays.values())).shape[0])
        return outputs

    def _run_options(self, arrays: Mapping[str, Array]) -> Any:
        """What gives memory back after a large batch; None after others, where only the caller's own options decide."""
        provider, _, options = self._how
        if provider != CPU or options is not None:
            return None
        if sum(array.size for name, array in arrays.items() if not name.startswith(PAST)) < _LARGE:
            return None
        return give_back_options()

    def _open(self) -> tuple[Any, Kernels]:
        opened = open_bundle(self._bundle, *self._how)
        check_signature(opened[0], self._bundle.manifest.inputs, self._bundle.manifest.outputs)
        return opened


def give_back_options() -> Any:
    """The ``onnxruntime.RunOptions`` of a run that gives the CPU's unused memory back to the system at its end."""
    options = onnxruntime().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def check_signature(session: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Checks that a model has the inputs and outputs of ``eptx.json``, which requests are checked against.

    Raises:
        BundleError: it has not.
    """
    for what, specs, values in (("input", inputs, session.get_inputs()), ("output", outputs, session.get_outputs())):
        said = {spec.name: (spec.dtype, spec.shape) for spec in specs}
        try:
            has = {value.name: (_ORT_DTYPES.get(value.type, value.type), tuple(value.shape)) for value in values}
        except UnicodeDecodeError:  # ONNX Runtime keeps the bytes of a file, and gives them out here
            raise BundleError(f"the model has an {what} whose name or dimension's name is not UTF-8") from None
        for name in sorted({*said, *has}):
            if name not in said or name not in has or not _agree(said[name], has[name]):
                raise BundleError(f"the model's {what} {name!r} is not what eptx.json says")


def _agree(said: tuple[str, Sequence[Any]], has: tuple[str, Sequence[Any]]) -> bool:
    """Whether types and ranks agree, and the sizes that both know; the outputs are checked for the others."""
    if said[0] != has[0] or len(said[1]) != len(has[1]):
        return False
    both = zip(said[1], has[1], strict=True)
    return all(a == b for a, b in both if isinstance(a, int) and isinstance(b, int))


def _check_outputs(outputs: Mapping[str, Array], manifest: Manifest, batch: int) -> None:
    """Checks that outputs have rows, the sizes of ``eptx.json``, and logits for all labels of a task."""
    for spec in manifest.outputs:
        shape = outputs[spec.name].shape
        if spec.name in (LOGITS, TASK_ID_USED) and shape[:1] != (batch,):
            raise BundleError(f"the model's output {spec.name} has shape {list(shape)} for a batch of {batch}")
        fits = len(shape) == len(spec.shape)
        fits = fits and all(a == b for a, b in zip(spec.shape, shape, strict=True) if isinstance(a, int))
        if not fits or (spec.name == LOGITS and max(task.labels or 0 for task in manifest.tasks) > shape[-1]):
            raise BundleError(
                f"the model's output {spec.name} has shape {list(shape)}, which is not what eptx.json says"
            )
