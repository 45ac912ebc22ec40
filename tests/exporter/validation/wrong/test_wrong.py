"""Each kind of wrong bundle fails with exit code 4, and the reason names what is wrong."""

from __future__ import annotations

import re

import pytest

from tests.exporter.validation.conftest import Cli
from tests.exporter.validation.wrong.bases import Bases
from tests.exporter.validation.wrong.kind import Kind
from tests.exporter.validation.wrong.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.bundle}: {kind.name}")
def test_a_wrong_bundle(bases: Bases, cli: Cli, kind: Kind) -> None:
    folder = bases.copy(kind.bundle, kind.damage)
    code, _, err = cli("validate", "-q", folder, "--provider", "cpu")
    reason = "".join(line for line in err.splitlines() if line.startswith("error: "))
    named = re.search(kind.names, reason) is not None
    found = {0: "passes", 4: "fails" if named else "unnamed"}.get(code, "crashes")
    assert found == kind.today, f"exit code {code}; {reason or err}"


def test_there_are_many_kinds() -> None:
    names = [(kind.bundle, kind.name) for kind in KINDS]
    assert len(set(names)) == len(names) >= 100
