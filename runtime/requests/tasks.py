"""Which task each row of a request is for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eptx._one_line import shown
from eptx.bundle import Manifest, Task
from eptx.errors import RequestError
from eptx.manifest.names import AUTO_TASK, BASE_TASK, INFER, TASK_ID, TASK_ID_USED
from eptx.runtime.outputs import Array
from eptx.runtime.requests.checks import to_array

#: One task for all rows, or one for each; None: the bundle's only task, or the one that it infers.
TaskNames = str | Sequence[str] | None


class TaskChooser:
    """Turns task names into the graph input ``task_id`` and back; checks that each row's task has its tokens."""

    def __init__(self, manifest: Manifest) -> None:
        self._tasks = manifest.tasks
        self._by_name = {task.name: task for task in manifest.tasks}
        self._by_id = {task.id: task for task in manifest.tasks}
        self._infers = manifest.task_inference
        #: the tasks that have fewer tokens than the model; those that can be inferred have all of one adapter's
        self._fewer = {task.id: task for task in manifest.tasks if task.vocab_size is not None}
        self._spec = next((spec for spec in manifest.inputs if spec.name == TASK_ID), None)
        #: of a model whose texts and images are batches of their own, which share a task
        self._one = self._spec is not None and self._spec.shape == (1,)

    @property
    def default(self) -> str | None:
        """The task of a request that names none: the only one, or ``auto``; None where it must name one."""
        own = [task.name for task in self._tasks if task.name != BASE_TASK] or [BASE_TASK]
        if self._infers:
            return AUTO_TASK
        return own[0] if len(own) == 1 or self._spec is None else None

    def choose(self, task: TaskNames, task_id: Any, batch: int) -> Array | None:
        """Task ids [batch], -1 where the model is to infer the task.

        Args:
            task: one name for all rows or one per row; ``auto`` infers. None is ``auto`` where the bundle can
                infer, or its only task.
            task_id: the ids themselves, instead of names.
            batch: the number of rows.

        Returns:
            None where the model has no input ``task_id``; [1] where it has one for the whole request.

        Raises:
            RequestError: an unknown task, the wrong number of them, or none where one must be named.
        """
        batch = 1 if self._one else batch
        if task_id is not None:
            if task is not None:
                raise RequestError("give either task or the input task_id, not both")
            return self._given(task_id, batch)
        names = self._names(task, batch)
        ids = [self._id(name) for name in names]
        if self._spec is None:
            return None
        return np.array(ids, np.dtype(self._spec.dtype))

    def rows(self, ids: Array | None, outputs: dict[str, Array], batch: int) -> list[Task]:
        """Each row's task; the graph output ``task_id_used`` says which one was inferred."""
        if ids is None:
            return [self._tasks[0]] * batch
        used = outputs.get(TASK_ID_USED, ids)
        unknown = Task(AUTO_TASK, INFER)
        return [self._by_id.get(int(i), unknown) for i in used]

    def check_inputs(self, arrays: Mapping[str, Array]) -> None:
        """`check_tokens` of a request's arrays by name, with its `TASK_ID`. Tokens that the mask hides do not count.

        Padding is one of them, and rows of other tasks in the batch may be padded with a token of their own.

        Raises:
            RequestError: see `check_tokens`.
        """
        tokens, mask = arrays.get("input_ids"), arrays.get("attention_mask")
        if tokens is None or not self._fewer:
            return
        shown = None if mask is None else mask[..., -tokens.shape[-1] :] != 0  # behind the positions of a cache
        if shown is not None and shown.shape == tokens.shape:
            tokens = np.where(shown, tokens, 0)
        ids = arrays.get(TASK_ID)
        self.check_tokens(tokens, ids, lambda row, at, token: f"input input_ids{[row, *at]} is {token}")

    def check_tokens(
        self, rows: Iterable[Array], ids: Array | None, named: Callable[[int, list[int], int], str]
    ) -> None:
        """Refuses tokens that the model has and a row's task has not: they are what another task's training added.

        Args:
            rows: the tokens of each, of any shape.
            ids: as `choose` gives them.
            named: (row, place in it, token) -> what to call the token.

        Raises:
            RequestError: the first of them.
        """
        if not self._fewer:
            return
        chosen = [self._tasks[0].id] if ids is None else ids.tolist()
        for row, tokens in enumerate(rows):
            task = self._fewer.get(chosen[row if row < len(chosen) else 0])
            if task is None or task.vocab_size is None:
                continue
            wrong = np.argwhere(np.greater_equal(tokens, task.vocab_size))
            if len(wrong):
                at = [int(i) for i in wrong[0]]
                name = named(row, at, int(tokens[tuple(at)]))
                raise RequestError(f"{name}; task {task.name} has token ids 0 to {task.vocab_size - 1}")

    def _names(self, task: TaskNames, batch: int) -> Sequence[str]:
        if task is None:
            if self.default is None:
                raise RequestError(f"name a task: {', '.join(self._by_name)}")
            return [self.default] * batch
        if isinstance(task, str):
            return [task] * batch
        wrong = RequestError(f"a task is a name or one name per row, not {type(task).__name__}")
        if isinstance(task, bytes):
            raise wrong
        try:
            names = list(task)
        except TypeError:
            raise wrong from None
        if self._one and len(names) != 1:
            raise RequestError(f"{len(names)} tasks; this bundle takes one, for all texts and images of a request")
        if len(names) != batch:
            raise RequestError(f"{len(names)} tasks for a batch of {batch}; give one name, or one per row")
        return names

    def _id(self, name: Any) -> int:
        task = self._by_name.get(name) if isinstance(name, str) else None
        if task is not None and (self._spec is not None or task == self._tasks[0]):
            return task.id
        if isinstance(name, str) and name == AUTO_TASK and self._infers:
            return INFER
        raise RequestError(self._unknown(name))

    def _unknown(self, name: Any) -> str:
        known = [t.name for t in self._tasks] if self._spec is not None else [self._tasks[0].name]
        close = difflib.get_close_matches(name[:100], known, n=1) if isinstance(name, str) else []
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"no task {shown(name)}; {hint}this bundle has {', '.join(known)}"

    def _given(self, task_id: Any, batch: int) -> Array:
        if self._spec is None:
            raise RequestError("no input 'task_id': this bundle does not choose the task by a request")
        ids = to_array(self._spec, task_id)
        if ids.shape != (batch,):
            raise RequestError(f"input task_id has shape {list(ids.shape)}; the batch is {batch}")
        for i, value in enumerate(ids.tolist()):
            if value not in self._by_id and not (value == INFER and self._infers):
                raise RequestError(f"input task_id[{i}] is {value}; this bundle has {self._ids()}")
        return ids

    def _ids(self) -> str:
        """``0 to 7``; each id, where some between are missing."""
        ids = sorted(self._by_id)
        return f"{ids[0]} to {ids[-1]}" if ids[-1] - ids[0] < len(ids) else ", ".join(map(str, ids))
