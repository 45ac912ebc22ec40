"""Tensors of equal content, as norms and biases are before training: one that is damaged hides behind the others.

All of them are found where one is held, so their uses are counted. Fewer uses than tensors is no error, since an
exporter may leave out what changes nothing; with something beside them that is most of one of them, it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from eptx.exporter.validation.contents.tensors.difference import difference
from eptx.exporter.validation.contents.tensors.graph_tensors import Held
from eptx.exporter.validation.contents.tensors.match import near
from eptx.exporter.validation.contents.tensors.model_tensors import Wanted


def hidden(found: Iterable[Wanted], held: Sequence[Held]) -> dict[str, str]:
    """Tensor -> what is wrong with it, for those that were found only because of their twins.

    Args:
        found: the tensors that are held as they are, or in a form that the model makes of them.
        held: what the graphs hold, with what is some tensor's already taken.
    """
    wrong: dict[str, str] = {}
    for twins in _twins(found):
        one = twins[0]
        wanted = [one.array, *(form for form in one.forms if form.shape == one.array.shape)]
        uses = sum(len(place.uses) for place in held if any(_is(place, array) for array in wanted))
        others = [place for place in held if not place.taken and not any(_is(place, array) for array in wanted)]
        said = difference(one, others) if uses < len(twins) else None
        if said is not None:
            names = {twin.name for twin in twins}
            name = next((place.name for place in others if place.name in names), one.name)
            wrong[name] = said if name != one.name else f"{said} (or one of the {len(twins)} tensors equal to it)"
    return wrong


def _twins(found: Iterable[Wanted]) -> list[list[Wanted]]:
    """Different tensors of the model with the same numbers; tables are told apart by their use."""
    groups: dict[tuple[str, tuple[int, ...], bytes], dict[int, Wanted]] = defaultdict(dict)
    for one in found:
        if one.kind != "table" and one.array.shape[1] == 1:
            groups[one.kind, one.array.shape, one.array.tobytes()].setdefault(one.array.ctypes.data, one)
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def _is(place: Held, array: np.ndarray) -> bool:
    return place.rows.shape == array.shape and bool(near(place.rows, array).all())
