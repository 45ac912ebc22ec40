"""One check: a part of a bundle, compared with its source or shown by a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

How = Literal["compared", "run", "unchecked"]


@dataclass(frozen=True)
class Check:
    """The check of one part of a bundle.

    Attributes:
        name: the part: a tensor of the trained model by its own name, a field of eptx.json, a file.
        how: "compared" with its source; "run", where every run shows it; "unchecked": a pass says nothing of it.
        wrong: what is wrong with the part, one line; None if nothing is.
        why: why it is unchecked, or only run.
    """

    name: str
    how: How
    wrong: str | None = None
    why: str | None = None
