"""docs/supported.md: the matrix as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.matrix.cell import MODES, TOLERANCE, Mode, Outcome
from tests.matrix.settings import PLAIN, SETTINGS
from tests.matrix.table import OF_SETTINGS, ROWS

Cells = Mapping[Mode, Outcome]
_HEAD = f"""# What exports

Written by `make matrix`. Every row is a tiny random model of that architecture, with adapters as PEFT saves them.
The bundle's outputs are compared with PEFT's own forward of the same files. They must be within
{TOLERANCE:.0e} times the largest number, or times 1 if that is more.

- **static**: one adapter is folded in.
- **conditioned**: one bundle of several adapters of different rank and modules; the batch mixes rows of all tasks and
  of `base`.
- **no [1]**: eptx refuses with the message of that number, below the table.
"""


def page(found: Mapping[tuple[str, str], Cells]) -> str:
    """The page.

    Args:
        found: (row, setting) -> what became of its modes.
    """
    parts = [_HEAD]
    for section in dict.fromkeys(row.section for row in ROWS):
        own = [row for row in ROWS if row.section == section]
        lines = [(row.name, f"`{row.trained}`", [found[row.name, PLAIN.name]]) for row in own]
        parts.append(f"## {section.capitalize()}\n\n" + _table(["architecture", "class", *MODES], lines))
    lines = [
        (each.name, f"`{each.config}`", [found[name, each.name] for name in OF_SETTINGS])
        for each in SETTINGS
        if each is not PLAIN
    ]
    columns = [f"{mode}, {name}" for name in OF_SETTINGS for mode in MODES]
    parts.append("## Settings of PEFT\n\n" + _table(["setting", "configuration", *columns], lines))
    return "\n".join(parts)


def _table(columns: Sequence[str], lines: Sequence[tuple[str, str, Sequence[Cells]]]) -> str:
    notes: dict[str, int] = {}
    rows = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name, kind, groups in lines:
        cells = [_cell(cells[mode], notes) for cells in groups for mode in MODES]
        rows.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    said = [f"\n{number}. {message}" for message, number in notes.items()]
    return "\n".join(rows) + "\n" + "".join(said) + ("\n" if said else "")


def _cell(outcome: Outcome, notes: dict[str, int]) -> str:
    if outcome.distance is not None:
        return "yes"
    return f"no [{notes.setdefault(outcome.refusal, len(notes) + 1)}]"
