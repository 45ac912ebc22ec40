"""A bundle, opened and ready to answer requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

from eptx._one_line import shown
from eptx.bundle import Bundle, Manifest, TensorSpec, read_bundle
from eptx.errors import BundleError, RequestError, UsageError
from eptx.files.strict_json import read_json_object
from eptx.manifest.names import TASK_ID
from eptx.runtime import spans
from eptx.runtime.generation.text_generator import TextGenerator
from eptx.runtime.ort.choice import choose_provider
from eptx.runtime.ort.model import OrtModel
from eptx.runtime.ort.opened import Opened
from eptx.runtime.ort.providers import onnxruntime
from eptx.runtime.outputs import Array, Outputs
from eptx.runtime.requests.checks import check_inputs
from eptx.runtime.requests.embeddings import batches_of, form_of
from eptx.runtime.requests.images.reader import ImageReader, Images, reads_images
from eptx.runtime.requests.rows import Rows, check_rows, rows_in
from eptx.runtime.requests.tasks import TaskChooser, TaskNames
from eptx.runtime.requests.tokenizer import Text, Tokenizer, is_text
from eptx.runtime.session.waits import Inputs, Waits


class Session(Waits):
    """Runs a bundle with ONNX Runtime.

        session = Session("bundle")
        outputs = session.run(["a fine film", "a dull film"], task="sst2")
        outputs.labels, outputs.logits, outputs["last_hidden_state"]

        session = Session("bundle of a language model")
        session.generate(["Is this English? ...", "Is this film good? ..."], task=["cola", "sst2"]).texts
        session.chat([{"role": "user", "content": "Is it raining?"}], task="weather").texts

    `close`, or the end of a ``with`` block, lets the model and its memory go. In a child of ``fork`` (gunicorn's
    ``preload_app``) a session opens its model anew when it is first used there.

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
        self._tokenizer = Opened(lambda: Tokenizer(self.bundle))
        self._images = Opened(lambda: ImageReader(self.manifest))
        if self.manifest.generation is None:
            self._model.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets the model go, with its memory. Calls that run end as usual; later ones raise `UsageError`."""
        for each in (self._model, self._generator, self._tokenizer, self._images):
            each.close()

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
        return self._tokenizer.get()

    @property
    def images(self) -> ImageReader:
        """What makes the bundle's ``pixel_values`` of images. For a bundle that reads texts too, such as CLIP:

            session.run({**session.tokenizer(texts), **session.images(images)})

        Raises:
            RequestError: the bundle reads no images, or does not say how.
            NotSupportedError: Pillow is not installed.
        """
        return self._images.get()

    def run(self, inputs: Inputs, task: TaskNames = None) -> Outputs:
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

    def check(self, inputs: Inputs, task: TaskNames = None) -> dict[str, Array]:
        """Checks one batch and turns it into the arrays that `run_checked` takes. The model is not opened for it.

        Args:
            inputs: arrays by input name, each [batch, ...]; or one text, or a list of texts and pairs
                of texts. Text longer than the model reads is cut (but refused by generators), arrays that are longer
                are refused. A generator's text gets its special tokens as in `stream`. Or, for a bundle that reads
                images, one or a list of them: paths, the bytes of files, images of Pillow, or arrays uint8 [height,
                width, channels].
            task: one task name for all rows, or one per row. ``auto`` has the model infer each row's task,
                where the bundle can. None is ``auto`` there, and the only task where there is one.

        Returns:
            Contiguous arrays of the graph's types by input name, ``task_id`` among them if the model has it.

        Raises:
            RequestError: the inputs or tasks do not fit the bundle; the message names which and why.
            NotSupportedError: what texts or images need is not installed: ``tokenizers``, Pillow.
        """
        if self.manifest.encoder is not None:
            raise RequestError("this bundle is an encoder-decoder, which answers prompts only; use Session.generate")
        inputs = self._made_of_images(inputs)
        if is_text(inputs):
            inputs = dict(self.tokenizer(inputs))
        elif not isinstance(inputs, Mapping):
            raise RequestError(f"inputs must be arrays by name or texts, not {type(inputs).__name__}")
        arrays = check_inputs(inputs, self.manifest, self._token_types)
        if self.manifest.generation is not None:
            check_rows(arrays, self.manifest.max_length)
        ids = self._tasks.choose(task, inputs.get(TASK_ID), rows_in(arrays))
        if ids is not None:
            arrays[TASK_ID] = ids
        self._tasks.check_inputs(arrays)
        return arrays

    def _made_of_images(self, inputs: Inputs) -> Mapping[str, Any] | Text:
        """Images as arrays by name, and all else as it is."""
        if isinstance(inputs, Mapping) or not reads_images(self.manifest):
            return cast(Mapping[str, Any] | Text, inputs)
        return self.images(cast(Images, inputs))

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
        return Outputs(outputs, self._tasks.rows(arrays.get(TASK_ID), outputs, rows_in(arrays)), arrays)

    def embed(
        self,
        inputs: Inputs,
        task: TaskNames = None,
        *,
        pooling: str | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
    ) -> Array:
        """The embeddings of rows, float32 [rows, size], in their order. They run in batches of like length.

            session.embed(["a fine film", "a dull film"])  # float32 [2, 384]

        Args:
            inputs: as in `check`, and any number of them.
            task: as in `check`, but None is ``base`` where the bundle has that task.
            pooling: None: the output ``embedding``, made as the base's sentence-transformers folder says. Or one of
                `eptx.manifest.names.POOLINGS`, which is applied to ``last_hidden_state``.
            normalize: whether each vector is divided by its length, as the last step.
            dimensions: how many numbers are kept, of models that were trained for it (Matryoshka).

        Raises:
            RequestError: the bundle gives no embeddings, or an argument does not fit.
            LimitError: a batch needs more memory than there is.
        """
        form = form_of(self.manifest, pooling, normalize=normalize, dimensions=dimensions)
        batches = batches_of(self.manifest, self._made_of_images(inputs), task, self.check, lambda: self.tokenizer)
        return form.join((rows, self.run_checked(arrays), arrays) for rows, arrays in batches)

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


def _token_types(bundle: Bundle) -> int | None:
    path = bundle.file("config.json")
    types = read_json_object(path, error=BundleError).get("type_vocab_size") if path is not None else None
    return types if type(types) is int and types > 0 else None
