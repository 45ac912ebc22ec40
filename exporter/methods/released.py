"""What a released code saves that PEFT would save otherwise, and how it is rewritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eptx._one_line import shown, some
from eptx.errors import AdapterError

_AGAIN = "save the adapter again with the code that trained it"


@dataclass(frozen=True)
class Conversion:
    """How the files of one released code become a folder that a method reads.

    Attributes:
        title: of what they hold, as its paper writes it.
        matches: whether files are of it, by their configuration (empty where there is none) and names of tensors.
        convert: from the tensors, by their names, and what the configuration and the user say to the tensors and the
            configuration to save. Names are without PEFT's prefix. What PEFT writes into every configuration, such as
            ``task_type``, is added to the result.
        settings: what the result must say and the files may not: key -> what it is, for those who are asked.
    """

    title: str
    matches: Callable[[Mapping[str, Any], Sequence[str]], bool]
    convert: Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], tuple[dict[str, np.ndarray], dict[str, Any]]]
    settings: Mapping[str, str] = field(default_factory=dict)


def found(tensors: Mapping[str, np.ndarray], name: str, ndim: int) -> np.ndarray:
    """One tensor of a released file.

    Raises:
        AdapterError: it is missing, or has another number of axes than `ndim`, or an empty one.
    """
    if name not in tensors:
        raise AdapterError(f"{name} is missing: {_AGAIN}")
    array = tensors[name]
    if array.ndim != ndim or 0 in array.shape:
        raise AdapterError(f"{name} has shape {list(array.shape)}; it must have {ndim} axes: {_AGAIN}")
    return array


def check_shape(name: str, array: np.ndarray, wanted: Sequence[int], why: str) -> None:
    """Raises AdapterError if a tensor has another shape than `wanted`, which `why` says."""
    if array.shape != tuple(wanted):
        raise AdapterError(f"{name} has shape {list(array.shape)}; {why} it is {list(wanted)}: {_AGAIN}")


def refuse_others(tensors: Mapping[str, np.ndarray], known: Sequence[str]) -> None:
    """Raises AdapterError if there are tensors whose names end in none of `known`."""
    others = sorted(name for name in tensors if not name.endswith(tuple(known)))
    if others:
        raise AdapterError(f"unexpected tensors: {some(others)}; the released code saves none of these")


def positive(config: Mapping[str, Any], key: str) -> float:
    """A positive number of what the configuration and the user say.

    Raises:
        AdapterError: it is something else.
    """
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise AdapterError(f"{key} must be a positive number, found {shown(value)}")
    return value
