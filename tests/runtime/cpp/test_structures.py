"""Structures of programs compiled with an older or newer eptx.h, and arrays whose count is larger than the array."""

from __future__ import annotations

import ctypes as c
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.cpp.library import NativeError, Session, check, load
from tests.runtime.cpp.structures import GenerateOptions, Input, Output, Prompts, RequestOf, Versioned
from tests.runtime.cpp.test_generate import BundleOf, bundle_of  # noqa: F401
from tests.support.tiny_bundle import write_tiny

IDS, SHAPE = (c.c_int64 * 4)(2, 5, 7, 3), (c.c_int64 * 2)(1, 4)
TASK = (c.c_char_p * 1)(b"mnli")
LATER = 16  # bytes that a later version adds


class Caller:
    """A program whose structures have given sizes, by type; `later` holds the bytes of newer fields."""

    def __init__(self, tiny: Session, decoder: Session) -> None:
        self.tiny, self.decoder = tiny, decoder
        self.sizes: dict[type[Versioned], int] = {}
        self.later = b"\0" * LATER
        self.kept: list[Any] = []

    def array(self, *structures: Versioned) -> Any:
        """Structures one after the other, each with this program's size."""
        size = self.sizes.get(type(structures[0]), c.sizeof(structures[0]))
        data = b""
        for structure in structures:
            structure.size = size
            data += (bytes(structure) + self.later)[:size]
        # then bytes that are no caller's field
        memory = c.create_string_buffer(data + b"\xff" * 64, len(data) + 64)
        self.kept += [memory, *structures]
        return c.cast(memory, c.POINTER(type(structures[0])))

    def request(self) -> Any:
        ones = (c.c_int64 * 4)(1, 1, 1, 1)
        inputs = self.array(
            Input(b"input_ids", 5, 2, SHAPE, c.addressof(IDS), 32),
            Input(b"attention_mask", 5, 2, SHAPE, c.addressof(ones), 32),
        )
        self.kept.append(ones)
        return self.array(RequestOf(inputs, 2, TASK, 1))

    def run_into(self) -> list[float]:
        logits, used = np.full(3, np.nan, np.float32), np.full(1, 77, np.int64)
        outputs = self.array(
            Output(b"logits", 2, logits.ctypes.data, 12), Output(b"task_id_used", 5, used.ctypes.data, 8)
        )
        library = self.tiny.library
        check(library, library.eptx_session_run_into, self.tiny.value, self.request(), outputs, c.c_size_t(2))
        if self.sizes.get(Output, 1 << 20) >= c.sizeof(Output):
            first = outputs.contents
            assert (first.bytes, first.rank, tuple(first.shape[:2])) == (12, 2, (1, 3))
        assert used.tolist() == [1]
        behind = [memory.raw[-64:] for memory in self.kept if isinstance(memory, c.Array) and memory._type_ is c.c_char]
        assert behind
        assert set(behind) == {b"\xff" * 64}
        return [float(value) for value in logits]

    def run(self) -> list[float]:
        library, result = self.tiny.library, c.c_void_p()
        check(library, library.eptx_session_run, self.tiny.value, self.request(), c.byref(result))
        tensor = library.eptx_result_output(result, c.c_size_t(1)).contents
        assert (tensor.name, tensor.size) == (b"logits", c.sizeof(Input))
        logits = list(np.frombuffer(c.string_at(tensor.data, tensor.bytes), np.float32))
        library.eptx_result_free(result)
        return [float(value) for value in logits]

    def generate(self) -> list[float]:
        library, made = self.decoder.library, c.c_void_p()
        lengths, names = (c.c_size_t * 1)(4), (c.c_char_p * 1)(b"task0")
        prompts = self.array(Prompts(IDS, 4, lengths, 1, names, 1))
        options = self.array(GenerateOptions(max_new_tokens=4))
        check(library, library.eptx_session_generate, self.decoder.value, prompts, options, c.byref(made))
        row = library.eptx_generation_row(made, c.c_size_t(0)).contents
        tokens = [float(token) for token in row.tokens[: row.token_count]]
        library.eptx_generation_free(made)
        return tokens


#: structure -> the call that takes it, and the smallest size that the call accepts
CALLS: dict[type[Versioned], tuple[Callable[[Caller], list[float]], int]] = {
    Input: (Caller.run, c.sizeof(Input)),
    RequestOf: (Caller.run, c.sizeof(RequestOf)),
    Output: (Caller.run_into, Output.bytes.offset),
    Prompts: (Caller.generate, c.sizeof(Prompts)),
    GenerateOptions: (Caller.generate, GenerateOptions.temperature.offset),
}


@pytest.fixture(scope="module")
def sessions(bundle_of: BundleOf, tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Session]:  # noqa: F811
    load()
    tiny = write_tiny(tmp_path_factory.mktemp("bundles") / "bundle").path
    return Session(tiny), Session(bundle_of("conditioned").path)


@pytest.fixture
def caller(sessions: tuple[Session, Session]) -> Caller:
    return Caller(*sessions)


def _refused(caller: Caller, kind: type[Versioned]) -> NativeError:
    with pytest.raises(NativeError) as e:
        CALLS[kind][0](caller)
    return e.value


@pytest.mark.parametrize("kind", CALLS)
def test_of_any_version(caller: Caller, kind: type[Versioned]) -> None:
    call, least = CALLS[kind]
    wanted = call(caller)
    assert not np.isnan(wanted).any()
    for size in (*range(least, c.sizeof(kind), 8), c.sizeof(kind) + 8, c.sizeof(kind) + LATER):
        caller.sizes = {kind: size}
        assert call(caller) == wanted, size


@pytest.mark.parametrize("kind", CALLS)
def test_that_ask_for_what_is_not_known(caller: Caller, kind: type[Versioned]) -> None:
    caller.sizes = {kind: c.sizeof(kind) + LATER}
    for at in (0, LATER - 1):
        caller.later = bytes(int(i == at) for i in range(LATER))
        error = _refused(caller, kind)
        assert (error.status, "asks for something that this libeptx does not know" in str(error)) == (5, True)


@pytest.mark.parametrize("kind", CALLS)
def test_too_small_for_what_the_call_needs(caller: Caller, kind: type[Versioned]) -> None:
    for size in range(8, CALLS[kind][1], 8):
        caller.sizes = {kind: size}
        assert _refused(caller, kind).status in (2, 3), size


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("size", [0, 1, 7, 12, 4104, 2**32, 2**63, 2**64 - 8])
def test_of_no_size(sessions: tuple[Session, Session], kind: type[Versioned], size: int) -> None:
    caller = Caller(*sessions)
    array = caller.array

    def lies(*structures: Versioned) -> Any:
        made = array(*structures)
        if isinstance(structures[0], kind):
            made.contents.size = size
        return made

    caller.array = lies  # type: ignore[method-assign]
    error = _refused(caller, kind)
    assert (error.status, f"size is {size}; EPTX_INIT sets it" in str(error)) == (2, True), error


def test_of_several_sizes(caller: Caller) -> None:
    first = Input(b"input_ids", 5, 2, SHAPE, c.addressof(IDS), 32)
    inputs = (Input * 2)(first, Input(b"attention_mask", 5, 2, SHAPE, c.addressof(IDS), 32, size=64))
    made, library = c.c_void_p(), caller.tiny.library
    with pytest.raises(NativeError, match=r"request\.inputs\[1\]\.size is 64; the first has 56") as e:
        check(library, library.eptx_session_run, caller.tiny.value, c.byref(RequestOf(inputs, 2)), c.byref(made))
    assert e.value.status == 2


def test_what_the_library_gives_has_its_size(caller: Caller) -> None:
    library = caller.tiny.library
    for name in ("task", "input", "output"):
        given = getattr(library, f"eptx_session_{name}")(caller.tiny.value, c.c_size_t(0)).contents
        assert given.size == c.sizeof(given)


def _run(caller: Caller, **fields: Any) -> None:
    good = {"inputs": (Input * 1)(Input(b"input_ids", 5, 2, SHAPE, c.addressof(IDS), 32)), "input_count": 1}
    library, made = caller.tiny.library, c.c_void_p()
    request = RequestOf(**{**good, "tasks": TASK, "task_count": 1, **fields})
    check(library, library.eptx_session_run, caller.tiny.value, c.byref(request), c.byref(made))
    library.eptx_result_free(made)


def _input(**fields: Any) -> dict[str, Any]:
    good = {"name": b"input_ids", "dtype": 5, "rank": 2, "shape": SHAPE, "data": c.addressof(IDS), "bytes": 32}
    return {"inputs": (Input * 1)(Input(**{**good, **fields}))}


def _into(caller: Caller, count: int, outputs: Any = None) -> None:
    library = caller.tiny.library
    check(library, library.eptx_session_run_into, caller.tiny.value, caller.request(), outputs, c.c_size_t(count))


def _generate(caller: Caller, stop_count: int = 0, **fields: Any) -> None:
    good = {"ids": IDS, "id_count": 4, "lengths": (c.c_size_t * 1)(4), "row_count": 1}
    names = {"tasks": (c.c_char_p * 1)(b"task0"), "task_count": 1}
    library, made = caller.decoder.library, c.c_void_p()
    options = GenerateOptions(max_new_tokens=1, stop=IDS, stop_count=stop_count)
    prompts = Prompts(**{**good, **names, **fields})
    check(
        library, library.eptx_session_generate, caller.decoder.value, c.byref(prompts), c.byref(options), c.byref(made)
    )
    library.eptx_generation_free(made)


def _shape(rows: int) -> Any:
    return (c.c_int64 * 2)(rows, 4)


#: case -> call, status, words; libeptx must not read the array
COUNTS: dict[str, tuple[Callable[[Caller], None], int, str]] = {
    "stops without end": (lambda k: _generate(k, stop_count=2**60), 2, "options.stop cannot have"),
    "many stops": (lambda k: _generate(k, stop_count=2**40), 3, "stop_count must be at most 65536"),
    "stops that wrap": (lambda k: _generate(k, stop_count=2**64 - 1), 2, "options.stop cannot have"),
    "ids without end": (lambda k: _generate(k, id_count=2**60), 2, "prompts.ids cannot have"),
    "a long prompt": (
        lambda k: _generate(k, id_count=2**50, lengths=(c.c_size_t * 1)(2**50)),
        3,
        "more than the 64 that the model reads",
    ),
    "a prompt that wraps": (
        lambda k: _generate(k, lengths=(c.c_size_t * 1)(2**64 - 1)),
        3,
        "the lengths of the prompts are more than 4",
    ),
    "rows without end": (lambda k: _generate(k, row_count=2**61), 2, "prompts.lengths cannot have"),
    "tasks of prompts without end": (lambda k: _generate(k, task_count=2**61), 2, "prompts.tasks cannot have"),
    "many tasks of prompts": (lambda k: _generate(k, task_count=2**40), 3, "tasks for a batch of 1"),
    "inputs without end": (lambda k: _run(k, input_count=2**61), 2, "request.inputs cannot have"),
    "many inputs": (lambda k: _run(k, input_count=2**30), 2, "request.inputs has 1073741824 elements"),
    "no inputs": (lambda k: _run(k, inputs=None, input_count=1), 2, "request.inputs is NULL"),
    "tasks without end": (lambda k: _run(k, task_count=2**61), 2, "request.tasks cannot have"),
    "many tasks": (lambda k: _run(k, task_count=2**40), 3, "tasks for a batch of 1"),
    "no tasks": (lambda k: _run(k, tasks=None), 2, "request.tasks is NULL"),
    "no shape": (lambda k: _run(k, **_input(shape=None)), 2, "input input_ids has no shape"),
    "no data": (lambda k: _run(k, **_input(data=None)), 2, "input input_ids has no data"),
    "no name": (lambda k: _run(k, **_input(name=None)), 2, "an input has no name"),
    "a rank without end": (lambda k: _run(k, **_input(rank=2**60)), 3, "has 1152921504606846976 dimensions"),
    "a shape that is half of memory": (
        lambda k: _run(k, **_input(shape=_shape(2**58), bytes=2**63)),
        3,
        "a shape that is negative or too large",
    ),
    "data that wraps": (
        lambda k: _run(k, **_input(shape=_shape(2**57), bytes=2**62, data=2**64 - 64)),
        2,
        "the data of input input_ids cannot have",
    ),
    "outputs without end": (lambda k: _into(k, 2**60, IDS), 2, "outputs cannot have"),
    "many outputs": (lambda k: _into(k, 2**30, IDS), 2, "outputs has 1073741824 elements"),
    "no outputs": (lambda k: _into(k, 1), 2, "outputs is NULL"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_and_pointers(caller: Caller, name: str) -> None:
    call, status, said = COUNTS[name]
    _run(caller)
    _generate(caller, stop_count=1)
    with pytest.raises(NativeError) as e:
        call(caller)
    assert (e.value.status, said in str(e.value)) == (status, True), str(e.value)


def test_what_info_has_is_what_the_header_says(caller: Caller) -> None:
    text = (Path(__file__).parents[3] / "runtime/cpp/include/eptx.h").read_text()
    said = text.partition("as a JSON object: ")[2].partition(" {running")[0].replace("*", " ").replace(" and ", " ")
    assert {word.strip() for word in said.split(",")} == set(json.loads(caller.tiny.info()))
