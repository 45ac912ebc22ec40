"""One kind of wrong bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.exporter.validation.wrong.edits import Damage


@dataclass(frozen=True)
class Kind:
    """A way in which a well-formed bundle is wrong.

    Attributes:
        name: what is wrong.
        bundle: the honest bundle of bases.py that is damaged.
        damage: what is done to a copy of it.
        names: what the reason must name: a task, module, table or field; a regular expression.
        today: what the validation says of it at present: it fails and names it, or something else; or it passes; or it
            ends with another exit code than 0 and 4. To be deleted when all fail.
    """

    name: str
    bundle: str
    damage: Damage
    names: str
    today: Literal["fails", "unnamed", "passes", "crashes"] = "fails"
