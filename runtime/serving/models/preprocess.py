"""From a request of the protocol to arrays that a session takes, all of it checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eptx.errors import NotSupportedError, RequestError
from eptx.manifest.names import TASK_ID
from eptx.runtime.outputs import Array
from eptx.runtime.requests.checks import check_inputs
from eptx.runtime.requests.tasks import TaskChooser
from eptx.runtime.requests.tokenizer import Tokenizer
from eptx.runtime.serving.batching.collate import row_length
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import MIXED
from eptx.runtime.serving.protocol.infer import InferRequest
from eptx.runtime.session import Session

#: Inputs of type BYTES, which the graph does not have: texts, those that they are paired with (an empty one: a text is
#: alone), and names of tasks.
TEXT, TEXT_PAIR, TASK = "text", "text_pair", "task"
_TASKS = "tasks"


@dataclass(frozen=True)
class Prepared:
    """A request that the session takes.

    Attributes:
        arrays: its inputs, ``task_id`` among them where the model has it.
        rows: how many.
        length: tokens of each row, padding included.
        task: the task of its rows, or `MIXED`.
        text: whether it brought text.
    """

    arrays: dict[str, Array]
    rows: int
    length: int
    task: str
    text: bool


class Preparer:
    """Prepares the requests of one bundle; may be used from many threads.

    Args:
        session: the bundle's.
        limits: of one request.
    """

    def __init__(self, session: Session, limits: Limits) -> None:
        self._manifest = session.manifest
        self._limits = limits
        self._reads = session._limits
        self._tasks = TaskChooser(session.manifest)
        self._names = {task.id: task.name for task in session.manifest.tasks}
        has_tokenizer = session.bundle.file("tokenizer.json") is not None
        self._tokenizer: Tokenizer | None = None
        self._missing = "this bundle has no tokenizer.json; give arrays such as input_ids instead of text"
        if has_tokenizer:  # now: the bundle's files may be replaced later
            try:
                self._tokenizer = Tokenizer(session.bundle)
            except NotSupportedError as error:
                self._missing = str(error)

    def __call__(self, request: InferRequest) -> Prepared:
        """Checks a request.

        Raises:
            RequestError: its inputs or tasks do not fit the bundle, or are more than one run takes.
        """
        if self._manifest.encoder is not None:
            raise RequestError("this bundle is an encoder-decoder, which answers prompts only; send it to generate")
        inputs = dict(request.inputs)
        texts, pairs = _texts(inputs, TEXT), _texts(inputs, TEXT_PAIR)
        names = self._task_names(request.parameters, _texts(inputs, TASK))
        self._check_rows(inputs, texts)
        self._limits.check_text(sum(map(len, (*(texts or ()), *(pairs or ())))))
        if texts is not None:
            inputs |= self._tokenized(inputs, texts, pairs)
        elif pairs is not None:
            raise RequestError("input text_pair needs the input text")
        _check_numbers(inputs)
        arrays = check_inputs(inputs, self._manifest, self._reads)
        rows, length = len(next(iter(arrays.values()))), row_length(arrays)
        if rows > 1 and rows * length > self._limits.max_tokens:
            raise RequestError(
                f"the request has {rows} rows of {length} tokens; this server takes {self._limits.max_tokens} tokens "
                "in one request of several rows"
            )
        ids = self._tasks.choose(names, inputs.get(TASK_ID), rows)
        if ids is not None:
            arrays[TASK_ID] = ids
        return Prepared(arrays, rows, length, self._label(ids), texts is not None)

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

    def _check_rows(self, inputs: Mapping[str, Array], texts: Sequence[str] | None) -> None:
        """Before anything is computed from them."""
        rows = len(texts) if texts is not None else max((len(a) for a in inputs.values() if a.ndim), default=0)
        if rows > self._limits.max_batch:
            raise RequestError(
                f"the request has {rows} rows; this server takes {self._limits.max_batch} in one request"
            )

    def _tokenized(
        self, inputs: Mapping[str, Array], texts: Sequence[str], pairs: Sequence[str] | None
    ) -> dict[str, Array]:
        if self._tokenizer is None:
            raise RequestError(self._missing)
        if "input_ids" in inputs:
            raise RequestError("give either the input text or the input input_ids, not both")
        if pairs is not None and len(pairs) != len(texts):
            raise RequestError(f"input text_pair has {len(pairs)} texts; text has {len(texts)}")
        if pairs is None:
            return self._tokenizer(texts)
        return self._tokenizer([(one, other) if other else one for one, other in zip(texts, pairs, strict=True)])

    def _label(self, ids: Array | None) -> str:
        if ids is None:
            return self._manifest.tasks[0].name
        used = set(ids.tolist())
        return self._names.get(used.pop(), "auto") if len(used) == 1 else MIXED


def _texts(inputs: dict[str, Array], name: str) -> list[str] | None:
    """The texts of an input [batch] or [batch, 1] of type BYTES, which is taken out of the inputs."""
    array = inputs.pop(name, None)
    if array is None:
        return None
    if array.dtype != object:
        raise RequestError(f"input {name} must be of datatype BYTES")
    if array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)):
        raise RequestError(f"input {name} has shape {list(array.shape)}; it must be [batch]")
    try:
        return [element.decode("utf-8") for element in array.ravel().tolist()]
    except UnicodeDecodeError:
        raise RequestError(f"input {name} holds bytes that are not UTF-8 text") from None


def _check_numbers(inputs: Mapping[str, Array]) -> None:
    for name, array in inputs.items():
        if array.dtype == object:
            raise RequestError(f"input {name!r} is of datatype BYTES; only {TEXT}, {TEXT_PAIR} and {TASK} are")
