"""Modules of a model in groups: ``encoder.layer.0-5.attention.self.query`` for six names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"(?<![^./_])\d+(?![^./_])")
_Numbers = tuple[int, ...]


def groups(modules: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """A name for each group, in the order of its first module -> the modules.

    Modules are of one group if their names differ in nothing but whole numbers, such as those of layers. A group's name
    stands for its modules and for no others: ``layers.0-1.experts.0-3`` for all eight.
    """
    patterns: dict[tuple[str, ...], dict[_Numbers, str]] = {}
    for module in modules:
        numbers = tuple(map(int, _NUMBER.findall(module)))
        words = tuple(_NUMBER.split(module))
        if any(str(number) != text for number, text in zip(numbers, _NUMBER.findall(module), strict=True)):
            numbers, words = (), (module,)  # layer.00 is not layer.0
        patterns.setdefault(words, {})[numbers] = module
    found = {}
    for words, named in patterns.items():
        for parts, numbers_of in _boxes(list(named)):
            name = words[0] + "".join(part + word for part, word in zip(parts, words[1:], strict=True))
            found[name] = tuple(named[numbers] for numbers in numbers_of)
    return found


def common(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is so of all of several modules, and of numbers their range; what differs otherwise is left out."""
    shared: dict[str, Any] = {}
    for key, first in facts[0].items():
        values = [each.get(key) for each in facts]
        numbers = [value for value in values if type(value) is int]
        if all(value == first for value in values):
            shared[key] = first
        elif len(numbers) == len(values):
            shared[key] = f"{min(numbers)} to {max(numbers)}"
    return shared


def _boxes(places: Sequence[_Numbers]) -> list[tuple[tuple[str, ...], list[_Numbers]]]:
    """Numbers as ranges: each of the boxes holds all combinations of its ranges, and they are `places` together."""
    if not places[0]:
        return [((), list(places))]
    behind: dict[int, list[_Numbers]] = {}
    for first, *rest in places:
        behind.setdefault(first, []).append(tuple(rest))
    alike: dict[frozenset[_Numbers], list[int]] = {}
    for first, rests in behind.items():
        alike.setdefault(frozenset(rests), []).append(first)
    boxes = []
    for same, firsts in alike.items():
        for parts, inner in _boxes(sorted(same)):
            boxes.append(((_ranges(firsts), *parts), [(first, *rest) for first in sorted(firsts) for rest in inner]))
    return boxes


def _ranges(numbers: Sequence[int]) -> str:
    """``0-2,5`` for 0, 1, 2 and 5."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
