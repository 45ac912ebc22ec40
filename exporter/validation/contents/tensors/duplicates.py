"""Tensors of equal content, such as untrained norms and biases: a damaged one hides behind the others.

A search finds all of them where the graph holds one, so their uses are counted. Fewer uses than tensors alone is no
error, since an exporter may leave out what changes nothing. It is one if the graph also holds most of such a tensor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from eptx.exporter.validation.contents.tensors.difference import difference
from eptx.exporter.validation.contents.tensors.graph_tensors import GraphTensor
from eptx.exporter.validation.contents.tensors.match import near
from eptx.exporter.validation.contents.tensors.model_tensors import ModelTensor


def damaged_duplicates(found: Iterable[ModelTensor], held: Sequence[GraphTensor]) -> dict[str, str]:
    """Tensor -> what is wrong with it, for those that were found only because of their duplicates.

    Args:
        found: the tensors that the graphs hold, as they are or in a form that the model computes.
        held: the graphs' tensors; those that match a tensor are taken.
    """
    wrong: dict[str, str] = {}
    for duplicates in _duplicates(found):
        one = duplicates[0]
        wanted = [one.array, *(form for form in one.forms if form.shape == one.array.shape)]
        uses = sum(len(place.uses) for place in held if any(_is(place, array) for array in wanted))
        others = [place for place in held if not place.taken and not any(_is(place, array) for array in wanted)]
        said = difference(one, others) if uses < len(duplicates) else None
        if said is not None:
            names = {duplicate.name for duplicate in duplicates}
            name = next((place.name for place in others if place.name in names), one.name)
            wrong[name] = said if name != one.name else f"{said} (or one of the {len(duplicates)} tensors equal to it)"
    return wrong


def _duplicates(found: Iterable[ModelTensor]) -> list[list[ModelTensor]]:
    """Groups of different vectors of the model with the same numbers."""
    groups: dict[tuple[str, tuple[int, ...], bytes], dict[int, ModelTensor]] = defaultdict(dict)
    for one in found:
        if one.kind != "table" and one.array.shape[1] == 1:
            groups[one.kind, one.array.shape, one.array.tobytes()].setdefault(one.array.ctypes.data, one)
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def _is(place: GraphTensor, array: np.ndarray) -> bool:
    return place.rows.shape == array.shape and bool(near(place.rows, array).all())
