"""The structures of eptx.h for ctypes."""

from __future__ import annotations

import ctypes as c
from typing import Any

MAX_RANK = 8


class Versioned(c.Structure):
    """A structure that begins with its size, as EPTX_INIT makes it."""

    def __init__(self, *values: Any, size: int | None = None, **fields: Any) -> None:
        super().__init__(c.sizeof(self) if size is None else size, *values, **fields)


class Input(Versioned):
    _fields_ = (
        ("size", c.c_size_t),
        ("name", c.c_char_p),
        ("dtype", c.c_int32),
        ("rank", c.c_size_t),
        ("shape", c.POINTER(c.c_int64)),
        ("data", c.c_void_p),
        ("bytes", c.c_size_t),
    )


class RequestOf(Versioned):
    _fields_ = (
        ("size", c.c_size_t),
        ("inputs", c.POINTER(Input)),
        ("input_count", c.c_size_t),
        ("tasks", c.POINTER(c.c_char_p)),
        ("task_count", c.c_size_t),
    )


class Output(Versioned):
    _fields_ = (
        ("size", c.c_size_t),
        ("name", c.c_char_p),
        ("dtype", c.c_int32),
        ("data", c.c_void_p),
        ("capacity", c.c_size_t),
        ("bytes", c.c_size_t),
        ("rank", c.c_size_t),
        ("shape", c.c_int64 * MAX_RANK),
    )


class Task(Versioned):
    _fields_ = (
        ("size", c.c_size_t),
        ("name", c.c_char_p),
        ("id", c.c_int64),
        ("labels", c.c_int64),
        ("label_names", c.POINTER(c.c_char_p)),
        ("problem_type", c.c_int32),
    )


class Info(Versioned):
    _fields_ = (
        ("size", c.c_size_t),
        ("name", c.c_char_p),
        ("dtype", c.c_int32),
        ("rank", c.c_size_t),
        ("shape", c.POINTER(c.c_int64)),
        ("dimension_names", c.POINTER(c.c_char_p)),
    )


class Prompts(Versioned):
    _fields_ = (
        ("size", c.c_size_t),
        ("ids", c.POINTER(c.c_int64)),
        ("id_count", c.c_size_t),
        ("lengths", c.POINTER(c.c_size_t)),
        ("row_count", c.c_size_t),
        ("tasks", c.POINTER(c.c_char_p)),
        ("task_count", c.c_size_t),
    )


OnToken = c.CFUNCTYPE(c.c_int32, c.c_void_p, c.c_size_t, c.c_int64)


class GenerateOptions(Versioned):
    _fields_ = (
        ("size", c.c_size_t),
        ("max_new_tokens", c.c_int64),
        ("temperature", c.c_float),
        ("top_p", c.c_float),
        ("top_k", c.c_int64),
        ("seed", c.c_uint64),
        ("stop", c.POINTER(c.c_int64)),
        ("stop_count", c.c_size_t),
        ("on_token", OnToken),
        ("context", c.c_void_p),
    )


class Generated(Versioned):
    _fields_ = (
        ("size", c.c_size_t),
        ("tokens", c.POINTER(c.c_int64)),
        ("token_count", c.c_size_t),
        ("finish", c.c_int32),
        ("task", c.POINTER(Task)),
    )
