"""From a request of the protocol to checked arrays for a session."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from eptx.errors import NotSupportedError, RequestError
from eptx.manifest.names import AUTO_TASK, PIXELS, TASK_ID
from eptx.runtime.outputs import Array
from eptx.runtime.requests.row_text import EncodedText
from eptx.runtime.serving.batching.collate import row_length
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import MIXED
from eptx.runtime.serving.protocol.infer import InferRequest
from eptx.runtime.session import Session
from eptx.runtime.spans import kind_of_bundle

#: Inputs of type BYTES beside those of the graph: texts, the second texts of pairs (an empty one: the text is alone),
#: the bytes of images' files (in JSON as base64), and names of tasks.
TEXT, TEXT_PAIR, IMAGE, TASK = "text", "text_pair", "image", "task"
_TASKS = "tasks"


@dataclass(frozen=True)
class Preprocessed:
    """A checked request.

    Attributes:
        arrays: its inputs, ``task_id`` among them where the model has it.
        rows: how many.
        length: tokens of each row, padding included.
        task: the task of its rows, or `MIXED`.
        text: whether it has texts or images.
        texts: what its tokens were made of, where the answer tells of parts of a text.
    """

    arrays: dict[str, Array]
    rows: int
    length: int
    task: str
    text: bool
    texts: Sequence[EncodedText] | None = None


class Preprocessor:
    """Preprocesses the requests of one bundle; may be used from many threads.

    Args:
        session: the bundle's.
        limits: of one request.
    """

    def __init__(self, session: Session, limits: Limits) -> None:
        self._session, self._limits = session, limits
        self._spans = kind_of_bundle(session.manifest) is not None
        self._names = {task.id: task.name for task in session.manifest.tasks}
        if session.bundle.file("tokenizer.json") is not None:
            with suppress(NotSupportedError):  # the requests that need it are told
                _ = session.tokenizer  # opened now: the bundle's files may be replaced later

    def __call__(self, request: InferRequest) -> Preprocessed:
        """Checks a request.

        Raises:
            RequestError: its inputs or tasks do not fit the bundle, or are more than one run takes.
        """
        if self._session.manifest.encoder is not None:
            raise RequestError("this bundle is an encoder-decoder, which answers prompts only; send it to generate")
        inputs = dict(request.inputs)
        texts, pairs = _texts(inputs, TEXT), _texts(inputs, TEXT_PAIR)
        names = self._task_names(request.parameters, _texts(inputs, TASK))
        images = _images(inputs, encoded=IMAGE not in request.blobs)
        self._check_rows(inputs, texts if images is None else images)
        self._limits.check_text(sum(map(len, (*(texts or ()), *(pairs or ())))))
        encoded = None
        if texts is not None:
            arrays, encoded = self._tokenize(inputs, texts, pairs)
            inputs |= arrays
        elif pairs is not None:
            raise RequestError("input text_pair needs the input text")
        if images is not None:
            if PIXELS in inputs:
                raise RequestError(f"give either the input {IMAGE} or the input {PIXELS}, not both")
            inputs |= self._session.images(images)
        _check_numbers(inputs)
        given = texts is not None or images is not None
        return self.checked(self._session.check(inputs, names), text=given, texts=encoded)

    def checked(
        self, arrays: dict[str, Array], *, text: bool = False, texts: Sequence[EncodedText] | None = None
    ) -> Preprocessed:
        """A request of arrays that the session has checked.

        Raises:
            RequestError: they are more than one run takes.
        """
        rows, length = len(next(iter(arrays.values()))), row_length(arrays)
        if rows > 1 and rows * length > self._limits.max_tokens:
            raise RequestError(
                f"the request has {rows} rows of {length} tokens; this server takes {self._limits.max_tokens} tokens "
                "in one request of several rows"
            )
        return Preprocessed(arrays, rows, length, self._task(arrays.get(TASK_ID)), text, texts)

    def _task_names(self, parameters: Mapping[str, Any], given: Sequence[str] | None) -> str | Sequence[str] | None:
        one, many = parameters.get(TASK), parameters.get(_TASKS)
        if (one is not None) + (many is not None) + (given is not None) > 1:
            raise RequestError("give one of the parameter task, the parameter tasks and the input task")
        if one is not None and not isinstance(one, str):
            raise RequestError(f"the parameter task must be a name, it is {type(one).__name__}")
        if isinstance(many, str):
            return [name.strip() for name in many.split(",")]
        if many is not None and not (isinstance(many, list) and all(isinstance(name, str) for name in many)):
            raise RequestError("the parameter tasks must be a list of names, one per row")
        return one if one is not None else many if many is not None else given

    def _check_rows(self, inputs: Mapping[str, Array], given: Sequence[str | bytes] | None) -> None:
        """Refuses too many rows before anything is computed from them."""
        rows = len(given) if given is not None else max((len(a) for a in inputs.values() if a.ndim), default=0)
        if rows > self._limits.max_batch:
            raise RequestError(
                f"the request has {rows} rows; this server takes {self._limits.max_batch} in one request"
            )

    def _tokenize(
        self, inputs: Mapping[str, Array], texts: Sequence[str], pairs: Sequence[str] | None
    ) -> tuple[dict[str, Array], Sequence[EncodedText] | None]:
        if "input_ids" in inputs:
            raise RequestError("give either the input text or the input input_ids, not both")
        if pairs is not None and len(pairs) != len(texts):
            raise RequestError(f"input text_pair has {len(pairs)} texts; text has {len(texts)}")
        seconds = pairs or [""] * len(texts)
        rows = [(text, pair) if pair else text for text, pair in zip(texts, seconds, strict=True)]
        tokenizer = self._session.tokenizer
        return tokenizer.read(rows) if self._spans else (tokenizer(rows), None)

    def _task(self, ids: Array | None) -> str:
        if ids is None:
            return self._session.tasks[0]
        used = set(ids.tolist())
        return self._names.get(used.pop(), AUTO_TASK) if len(used) == 1 else MIXED


def _texts(inputs: dict[str, Array], name: str) -> list[str] | None:
    """The texts of an input, which is removed."""
    try:
        found = _bytes(inputs, name)
        return None if found is None else [element.decode("utf-8") for element in found]
    except UnicodeDecodeError:
        raise RequestError(f"input {name} holds bytes that are not UTF-8 text") from None


def _images(inputs: dict[str, Array], *, encoded: bool) -> list[bytes] | None:
    """The files of the images of a request, whose input is removed."""
    found = _bytes(inputs, IMAGE)
    if found is None or not encoded:
        return found
    try:
        return [base64.b64decode(element, validate=True) for element in found]
    except ValueError:
        raise RequestError(f"input {IMAGE} holds a text that is not base64; in JSON, an image's file is") from None


def _bytes(inputs: dict[str, Array], name: str) -> list[bytes] | None:
    """Removes an input [batch] or [batch, 1] of type BYTES from the inputs, and returns its elements."""
    array = inputs.pop(name, None)
    if array is None:
        return None
    if array.dtype != object:
        raise RequestError(f"input {name} must be of datatype BYTES")
    if array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)):
        raise RequestError(f"input {name} has shape {list(array.shape)}; it must be [batch]")
    return list(array.ravel().tolist())


def _check_numbers(inputs: Mapping[str, Array]) -> None:
    for name, array in inputs.items():
        if array.dtype == object:
            raise RequestError(f"input {name!r} is of datatype BYTES; only {TEXT}, {TEXT_PAIR}, {IMAGE} and {TASK} are")
