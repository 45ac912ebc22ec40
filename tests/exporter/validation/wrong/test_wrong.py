"""Each kind of wrong bundle fails with exit code 4, and the reason names what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.exporter.validation.conftest import Cli
from tests.exporter.validation.wrong.bases import QUANTIZED, Bases
from tests.exporter.validation.wrong.kind import Kind
from tests.exporter.validation.wrong.kinds import KINDS
from tests.support.kept_references import kept_references

#: Their weights are compared by rule; and a proof has a graph of its own of those that round activations.
ROUNDED = {*QUANTIZED, "llama int4"}


def failed(folder: Path) -> set[tuple[str, str]]:
    """The backends and tasks that a report of a run finds wrong."""
    report = json.loads((folder / "validation.json").read_text())
    backends = [(f"{each['provider']} {each['operators']}", each["tasks"]) for each in report["providers"]]
    return {(name, task["task"]) for name, tasks in backends for task in tasks if task["verdict"] == "fail"}


def manifest(folder: Path) -> Any:
    """What ``eptx.json`` says, without the files' hashes."""
    return json.loads((folder / "eptx.json").read_text()) | {"files": None}


@pytest.fixture(scope="module", autouse=True)
def _once() -> Iterator[None]:
    with kept_references():
        yield


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.bundle}: {kind.name}")
def test_a_wrong_bundle(bases: Bases, cli: Cli, kind: Kind) -> None:
    folder = bases.copy(kind.bundle, kind.damage)
    code, _, err = cli("validate", "-q", folder, "--provider", "cpu")
    reason = "".join(line for line in err.splitlines() if line.startswith("error: "))
    assert code == 4, f"exit code {code}; {reason or err}"
    assert re.search(kind.names, reason), f"{kind.names!r} is not named: {reason}"
    wrong = failed(folder)
    code, _, err = cli("validate", "-q", folder, "--against-proof", bases.proof(kind.bundle), "--provider", "cpu")
    assert code == 4, f"by the proof: exit code {code}; {err}"
    # what the reference is told by eptx.json, and what is compared without a run, a proof knows by their hashes alone
    told = manifest(folder) != manifest(bases.bundle(kind.bundle).path) or kind.bundle in ROUNDED
    assert failed(folder) <= wrong if told else failed(folder) == wrong


def test_there_are_many_kinds() -> None:
    names = [(kind.bundle, kind.name) for kind in KINDS]
    assert len(set(names)) == len(names) >= 100
