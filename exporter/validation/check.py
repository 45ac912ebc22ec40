"""The parts of a bundle that are held against their sources one by one, apart from what running shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

How = Literal["compared", "run", "neither"]


@dataclass(frozen=True)
class Part:
    """One part of a bundle.

    Attributes:
        name: what it is: a tensor of the trained model by its own name, a field of eptx.json, a file.
        how: "compared" with its source; shown by what was "run"; "neither", so a pass says nothing of it.
        wrong: what is wrong with it, one line; None if nothing is.
        why: for "neither" (or a "run" that needs a word): why it was not compared.
    """

    name: str
    how: How
    wrong: str | None = None
    why: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {"name": self.name, "how": self.how, "wrong": self.wrong, "why": self.why}
