"""A bundle, opened and ready to answer requests."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from eptx._one_line import shown
from eptx.bundle import Bundle, Manifest, TensorSpec, read_bundle
from eptx.errors import BundleError, RequestError, UsageError
from eptx.files.strict_json import read_json_object
from eptx.manifest.names import TASK_ID
from eptx.runtime import spans
from eptx.runtime.generation.outputs import Generated, Stream
from eptx.runtime.generation.prompts import Prompts
from eptx.runtime.generation.request import GenerationRequest
from eptx.runtime.generation.settings import SearchOptions
from eptx.runtime.generation.text_generator import TextGenerator
from eptx.runtime.ort.choice import choose_provider
from eptx.runtime.ort.model import OrtModel
from eptx.runtime.ort.providers import onnxruntime
from eptx.runtime.outputs import Array, Outputs
from eptx.runtime.requests.checks import check_inputs
from eptx.runtime.requests.rows import Rows, check_rows
from eptx.runtime.requests.tasks import TaskChooser
from eptx.runtime.requests.tokenizer import Text, Tokenizer, is_text


class Session:
    """Runs a bundle with ONNX Runtime.

        session = Session("bundle")
        outputs = session.run(["a fine film", "a dull film"], task="sst2")
        outputs.labels, outputs.logits, outputs["last_hidden_state"]

        session = Session("bundle of a language model")
        session.generate(["Is this English? ...", "Is this film good? ..."], task=["cola", "sst2"]).texts

    One session may be used from many threads at once. A language model is opened when it is first used: by `run` in
    ONNX Runtime, by `generate` and `stream` in what makes its tokens.

    Args:
        bundle: a bundle's folder, or the `Bundle` that `eptx.bundle.read_bundle` gave.
        provider: a name of `eptx.providers.PROVIDERS`, or ``auto``: CUDA where it starts and the bundle was exported
            for it, or else the CPU. If CUDA does not start, a warning is logged once in a process.
        threads: how many threads one operator may use; ONNX Runtime's choice when None.
        verify: whether to compare the files with their SHA-256 first.
        session_options: an ``onnxruntime.SessionOptions`` for `run` to use as it is instead of eptx's. It decides about
            native kernels too: register `kernel_library` on it to have them.

    Attributes:
        bundle: the bundle.
        provider: the name of the one that runs it.

    Raises:
        BundleError: the bundle is damaged, or ONNX Runtime does not load its model.
        NotSupportedError: the provider is not on this machine, does not start, or takes no node of the model; or ONNX
            Runtime is not installed.
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
        if threads is not None and (type(threads) is not int or not 1 <= threads < 2**31):
            raise UsageError(f"threads must be a positive number, not {shown(threads)}")
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle, verify=verify)
        self._choice = choose_provider(provider, self.manifest.provider)
        self.provider = self._choice.provider
        self._model = OrtModel(self.bundle, self.provider, threads, session_options)
        self._generator = TextGenerator(self.bundle, self.provider, threads, lambda: self.tokenizer)
        self._token_types = _token_types(self.bundle)
        self._tasks = TaskChooser(self.manifest)
        self._tells_of_texts = spans.kind_of_bundle(self.manifest) is not None
        self._tokenizer: Tokenizer | None = None
        self._tokenizer_lock = threading.Lock()
        if self.manifest.generation is None:
            self._model.open()

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

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer, opened when it is first needed.

        Raises:
            RequestError: the bundle has no tokenizer.
            NotSupportedError: the ``tokenizers`` package is not installed.
            BundleError: the tokenizer cannot be read.
        """
        with self._tokenizer_lock:
            if self._tokenizer is None:
                self._tokenizer = Tokenizer(self.bundle)
            return self._tokenizer

    def run(self, inputs: Mapping[str, Any] | Text, task: str | Sequence[str] | None = None) -> Outputs:
        """Answers one batch: `check`, then `run_checked`.

        A decoder gives the logits [batch, length, vocabulary] of every position, zeros where the mask hides it. Rows
        may be padded on either side. ``past_key_values.*`` may be what ``present.*`` were before, in which a row's
        tokens stand on the left; then ``attention_mask`` [batch, past + length] says which positions count.

        Args, Raises: see `check` and `run_checked`.
        """
        if not (self._tells_of_texts and is_text(inputs)):
            return self.run_checked(self.check(inputs, task))
        arrays, texts = self.tokenizer.read(inputs)
        return self.run_checked(self.check(arrays, task)).of_texts(texts)

    def check(self, inputs: Mapping[str, Any] | Text, task: str | Sequence[str] | None = None) -> dict[str, Array]:
        """Checks one batch and turns it into the arrays that `run_checked` takes. The model is not opened for it.

        Args:
            inputs: arrays by input name, each [batch, ...]; or one text, or a list of texts and pairs
                of texts. Text longer than the model reads is cut (but refused by generators), arrays that are longer
                are refused. A generator's text gets its special tokens as in `stream`.
            task: one task name for all rows, or one per row. ``auto`` has the model infer each row's task,
                where the bundle can. None is ``auto`` there, and the only task where there is one.

        Returns:
            Contiguous arrays of the graph's types by input name, ``task_id`` among them if the model has it.

        Raises:
            RequestError: the inputs or tasks do not fit the bundle; the message names which and why.
            NotSupportedError: text was given and the ``tokenizers`` package is not installed.
        """
        if self.manifest.encoder is not None:
            raise RequestError("this bundle is an encoder-decoder, which answers prompts only; use Session.generate")
        if is_text(inputs):
            inputs = dict(self.tokenizer(inputs))
        elif not isinstance(inputs, Mapping):
            raise RequestError(f"inputs must be arrays by name or texts, not {type(inputs).__name__}")
        arrays = check_inputs(inputs, self.manifest, self._token_types)
        if self.manifest.generation is not None:
            check_rows(arrays, self.manifest.max_length)
        ids = self._tasks.choose(task, inputs.get(TASK_ID), _batch(arrays))
        if ids is not None:
            arrays[TASK_ID] = ids
        self._tasks.check_inputs(arrays)
        return arrays

    def run_checked(self, arrays: Mapping[str, Array]) -> Outputs:
        """Answers one batch that `check` gave, or the rows of several, concatenated.

        Raises:
            RequestError: ONNX Runtime fails on the batch.
            LimitError: the batch needs more memory than there is.
            BundleError: a generator's model is opened by this call, and ONNX Runtime does not load it.
        """
        arrays = dict(arrays)
        rows = Rows(arrays) if self.manifest.generation is not None else None
        outputs = self._model.run(arrays)
        if rows is not None:
            rows.restore(outputs, self.manifest)
        return Outputs(outputs, self._tasks.rows(arrays.get(TASK_ID), outputs, _batch(arrays)), arrays)

    def generate(
        self, prompts: Prompts, task: str | Sequence[str] | None = None, **options: Unpack[SearchOptions]
    ) -> Generated:
        """Answers prompts: collects what `stream` gives.

        Args, Raises: see `stream`.
        """
        return self.stream(prompts, task, **options).collect()

    def stream(
        self, prompts: Prompts, task: str | Sequence[str] | None = None, **options: Unpack[SearchOptions]
    ) -> Stream:
        """Answers prompts token by token: `check_prompts`, then `stream_checked`.

            for piece in session.stream("Once upon a time", task="stories"):
                print(piece.text, end="", flush=True)

        Args, Raises: see `check_prompts` and `stream_checked`.
        """
        return self.stream_checked(self.check_prompts(prompts, task, **options))

    def check_prompts(
        self, prompts: Prompts, task: str | Sequence[str] | None = None, **options: Unpack[SearchOptions]
    ) -> GenerationRequest:
        """Checks prompts and turns them into what `stream_checked` takes. The model is not opened for it.

        Args:
            prompts: one text, a list of texts, or a list of rows of token ids, which may differ in length. Texts are
                taken as they are: no chat template is put around them. For an encoder that reads no tokens, its array
                by name: ``{"input_features": [rows, mels, frames]}``, as the base's feature extractor gives it.
            task: as in `check`; a task that is inferred is inferred from the prompt, and kept.
            options: any of `SearchOptions`.

        Raises:
            RequestError: the prompts, the tasks or an option do not fit; or the bundle does not generate.
            NotSupportedError: ``tokenizers`` is needed and not installed.
        """
        return self._generator.check(prompts, task, options)

    def stream_checked(self, request: GenerationRequest) -> Stream:
        """Starts to answer a request that `check_prompts` gave, or several that were joined.

        Raises:
            NotSupportedError: ``onnxruntime-genai`` or ``tokenizers`` are needed and not installed.
            LimitError: the batch needs more memory than there is.
            BundleError: the model is opened by this call and does not load.
        """
        return self._generator.stream(request)

    def info(self) -> dict[str, Any]:
        """What runs where, as JSON types.

        ``provider_reason`` says why ``auto`` took the CPU for a bundle that was exported for another provider.
        ``nodes`` counts the nodes of the open model by the provider that runs each: the CPU runs those that the
        provider leaves. It is None where the CPU was asked for, and where GenAI opened the model.
        ``kernels`` says whether the model's own operators run as native kernels (``running``), and why not
        (``reason``): they are then computed by the functions that the model holds, to the same results.
        ``integer_products`` says whether products of 8-bit integers are ``exact`` on this processor.
        """
        manifest = self.manifest
        kernels = (self._generator if self._generator.is_open else self._model).kernels
        return {
            "bundle": str(self.bundle.path),
            "mode": manifest.mode,
            "method": manifest.method,
            "model_type": manifest.model_type,
            "precision": manifest.precision,
            "tasks": list(self.tasks),
            "inputs": [spec.name for spec in self.inputs],
            "outputs": [spec.name for spec in self.outputs],
            "generates": manifest.generation is not None,
            "provider": self.provider,
            "provider_reason": self._choice.reason,
            "nodes": self._model.nodes,
            "onnxruntime": onnxruntime().__version__,
            "kernels": kernels.to_json(),
            "integer_products": self._model.integers,
        }


def _batch(arrays: Mapping[str, Array]) -> int:
    return len(next(iter(arrays.values())))


def _token_types(bundle: Bundle) -> int | None:
    path = bundle.file("config.json")
    types = read_json_object(path, error=BundleError).get("type_vocab_size") if path is not None else None
    return types if type(types) is int and types > 0 else None
