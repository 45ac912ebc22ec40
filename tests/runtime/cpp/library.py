"""libeptx through ctypes: the part that the tests need.

`load` finds the library below ``build/native``, or where the variable EPTX_LIBRARY says, and skips the test with the
reason when it was not built.
"""

from __future__ import annotations

import ctypes as c
import functools
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.runtime.cpp.structures import (
    Generated,
    GenerateOptions,
    Info,
    Input,
    OnToken,
    Output,
    Prompts,
    RequestOf,
    Task,
)

BUILD = Path(__file__).parents[3] / "build" / "native"
DTYPES = {"float16": 1, "float32": 2, "float64": 3, "int32": 4, "int64": 5, "bool": 6}
KERNELS = {"auto": 0, "on": 1, "off": 2}
FINISHES = {1: "stop", 2: "length", 3: "caller"}


class NativeError(Exception):
    """An error of libeptx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Answer(NamedTuple):
    """One row that was generated."""

    tokens: list[int]
    finish: str
    task: str | None


def path() -> Path | None:
    """Where the library is."""
    if "EPTX_LIBRARY" in os.environ:
        return Path(os.environ["EPTX_LIBRARY"])
    return next(iter(sorted(BUILD.rglob("libeptx.so"))), None)


def program(name: str) -> Path:
    """A test program of the same build; skips the test where it was not built."""
    found = next(iter(sorted(BUILD.rglob(name))), None)
    if found is None:
        pytest.skip(f"{name} is not built: configure build/native with -DEPTX_BUILD_TESTS=ON")
    return found


def _load(where: Path) -> c.CDLL:
    library = c.CDLL(str(where))
    for name, result in {
        "eptx_version": c.c_char_p,
        "eptx_error_message": c.c_char_p,
        "eptx_session_info": c.c_char_p,
        "eptx_session_task": c.POINTER(Task),
        "eptx_result_task": c.POINTER(Task),
        "eptx_session_input": c.POINTER(Info),
        "eptx_session_output": c.POINTER(Info),
        "eptx_generation_row": c.POINTER(Generated),
        "eptx_result_output": c.POINTER(Input),  # a tensor has the fields of an input
    }.items():
        getattr(library, name).restype = result
    return library


@functools.cache
def load() -> c.CDLL:
    """The library; skips the test where it was not built."""
    where = path()
    if where is None:
        pytest.skip("libeptx is not built: cmake -S runtime/cpp -B build/native, see runtime/cpp/CMakeLists.txt")
    return _load(where)


def check(library: c.CDLL, call: Callable[..., int], *args: Any) -> None:
    """Calls a function whose last argument is an error; raises the error that it stores."""
    error = c.c_void_p()
    status = call(*args, c.byref(error))
    if status == 0:
        assert not error.value
        return
    assert library.eptx_error_status(error) == status
    message = library.eptx_error_message(error).decode()
    library.eptx_error_free(error)
    # (characters that Unicode has not assigned are printable here, but not in Python)
    assert not {unicodedata.category(char) for char in message} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}, message
    raise NativeError(status, message)


def _answer(row: Generated) -> Answer:
    task = row.task.contents.name.decode() if row.task else None
    return Answer(row.tokens[: row.token_count], FINISHES[row.finish], task)


class _Handle:
    def __init__(self, library: c.CDLL, free: Callable[..., None]) -> None:
        self.library = library
        self.value = c.c_void_p()
        self._free = free

    def close(self) -> None:
        self._free(self.value)
        self.value = c.c_void_p()

    __del__ = close


class Environment(_Handle):
    def __init__(self, shared_threads: int = 0, arena_limit: int = 0) -> None:
        library = load()
        super().__init__(library, library.eptx_environment_free)
        create = library.eptx_environment_create
        check(library, create, c.c_int32(shared_threads), c.c_size_t(arena_limit), c.byref(self.value))


class Request:
    """A request as the library takes it. Keeps the arrays alive that it points to."""

    def __init__(self, inputs: Mapping[str, np.ndarray], tasks: str | Sequence[str] | None) -> None:
        self._arrays = {name: np.ascontiguousarray(a) if a.size else a for name, a in inputs.items()}
        self._shapes = {name: (c.c_int64 * max(a.ndim, 1))(*a.shape) for name, a in self._arrays.items()}
        self.inputs = (Input * len(self._arrays))(
            *(
                Input(name.encode(), DTYPES.get(a.dtype.name, 99), a.ndim, self._shapes[name], a.ctypes.data, a.nbytes)
                for name, a in self._arrays.items()
            )
        )
        names = [tasks] if isinstance(tasks, str) else list(tasks or [])
        self._tasks = (c.c_char_p * len(names))(*(name.encode() for name in names))
        self.value = RequestOf(self.inputs, len(self.inputs), self._tasks, len(names))


class Session(_Handle):
    """A bundle opened by libeptx."""

    def __init__(
        self,
        bundle: Path,
        *,
        environment: Environment | None = None,
        threads: int = 1,
        verify: bool = True,
        kernels: str = "auto",
        arena: bool = True,
    ) -> None:
        library = load()
        super().__init__(library, library.eptx_session_close)
        environment = environment or Environment()
        options = c.c_void_p()
        check(library, library.eptx_options_create, c.byref(options))
        library.eptx_options_set_threads(options, c.c_int32(threads))
        library.eptx_options_set_verify(options, c.c_int32(verify))
        library.eptx_options_set_kernels(options, c.c_int32(KERNELS[kernels]))
        library.eptx_options_set_arena(options, c.c_int32(arena))
        try:
            place = c.byref(self.value)
            check(library, library.eptx_session_open, environment.value, os.fsencode(bundle), options, place)
        finally:
            library.eptx_options_free(options)

    def run(
        self, inputs: Mapping[str, np.ndarray], tasks: str | Sequence[str] | None = None
    ) -> tuple[dict[str, np.ndarray], list[str | None]]:
        """The outputs by name, and the name of each row's task."""
        request, result = Request(inputs, tasks), c.c_void_p()
        check(self.library, self.library.eptx_session_run, self.value, c.byref(request.value), c.byref(result))
        try:
            outputs: dict[str, np.ndarray] = {}
            while tensor := self.library.eptx_result_output(result, c.c_size_t(len(outputs))):
                t = tensor.contents
                dtype = next(name for name, number in DTYPES.items() if number == t.dtype)
                data = np.frombuffer(c.string_at(t.data, t.bytes), dtype)
                outputs[t.name.decode()] = data.reshape(t.shape[: t.rank])
            rows = next(iter(inputs.values())).shape[0]
            found = [self.library.eptx_result_task(result, c.c_size_t(row)) for row in range(rows)]
            assert not self.library.eptx_result_task(result, c.c_size_t(rows))
            return outputs, [task.contents.name.decode() if task else None for task in found]
        finally:
            self.library.eptx_result_free(result)

    def run_into(
        self, inputs: Mapping[str, np.ndarray], tasks: str | Sequence[str] | None, outputs: Mapping[str, np.ndarray]
    ) -> list[tuple[int, tuple[int, ...]]]:
        """Writes outputs into arrays; bytes and shape of each. If one is too small, the error has them as ``sizes``."""
        request = Request(inputs, tasks)
        wanted = (Output * len(outputs))(
            *(
                Output(name.encode(), DTYPES[a.dtype.name], a.ctypes.data if a.size else None, a.nbytes)
                for name, a in outputs.items()
            )
        )
        run = self.library.eptx_session_run_into
        try:
            check(self.library, run, self.value, c.byref(request.value), wanted, c.c_size_t(len(wanted)))
        except NativeError as e:
            e.sizes = [(o.bytes, tuple(o.shape[: o.rank])) for o in wanted]  # type: ignore[attr-defined]
            raise
        return [(o.bytes, tuple(o.shape[: o.rank])) for o in wanted]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        tasks: str | Sequence[str] | None = None,
        *,
        on_token: Callable[[int, int], bool] | None = None,
        stop: Sequence[int] = (),
        size: int | None = None,
        id_count: int | None = None,
        **options: float,
    ) -> list[Answer]:
        """The answer to each prompt. `on_token` takes a row and a token, and returns whether to go on."""
        ids = [token for prompt in prompts for token in prompt]
        names = [tasks] if isinstance(tasks, str) else list(tasks or [])
        request = Prompts(
            (c.c_int64 * len(ids))(*ids),
            len(ids) if id_count is None else id_count,
            (c.c_size_t * len(prompts))(*map(len, prompts)),
            len(prompts),
            (c.c_char_p * len(names))(*(name.encode() for name in names)),
            len(names),
        )
        wanted = GenerateOptions(size=size, **options)
        wanted.stop, wanted.stop_count = (c.c_int64 * len(stop))(*stop), len(stop)
        wanted.on_token = OnToken() if on_token is None else OnToken(lambda _, row, token: not on_token(row, token))
        made = c.c_void_p()
        generate = self.library.eptx_session_generate
        check(self.library, generate, self.value, c.byref(request), c.byref(wanted), c.byref(made))
        try:
            rows = [self.library.eptx_generation_row(made, c.c_size_t(row)) for row in range(len(prompts))]
            assert not self.library.eptx_generation_row(made, c.c_size_t(len(prompts)))
            return [_answer(row.contents) for row in rows]
        finally:
            self.library.eptx_generation_free(made)

    def info(self) -> str:
        text: bytes = self.library.eptx_session_info(self.value)
        return text.decode()

    def tasks(self) -> list[tuple[str, int, int, list[str] | None]]:
        found: list[tuple[str, int, int, list[str] | None]] = []
        while task := self.library.eptx_session_task(self.value, c.c_size_t(len(found))):
            t = task.contents
            names = [t.label_names[i].decode() for i in range(t.labels)] if t.label_names else None
            found.append((t.name.decode(), t.id, t.labels, names))
        return found

    def tensors(self, which: str) -> list[tuple[str, str, tuple[int | str, ...]]]:
        """Names, types and shapes of the ``input`` or ``output`` tensors."""
        at = getattr(self.library, f"eptx_session_{which}")
        found: list[tuple[str, str, tuple[int | str, ...]]] = []
        while info := at(self.value, c.c_size_t(len(found))):
            i = info.contents
            names = [i.dimension_names[axis] for axis in range(i.rank)]
            assert all((name is None) == (i.shape[axis] != -1) for axis, name in enumerate(names))
            dtype = next(name for name, number in DTYPES.items() if number == i.dtype)
            found.append(
                (
                    i.name.decode(),
                    dtype,
                    tuple(name.decode() if name else i.shape[axis] for axis, name in enumerate(names)),
                )
            )
        return found
