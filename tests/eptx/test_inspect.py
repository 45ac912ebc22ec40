"""`eptx inspect` on a screen: real adapters and bundles fit, and a group stands for its modules and no others."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eptx.cli.parts.facts import fact_lines, table_lines
from eptx.cli.parts.module_groups import common, groups
from tests.support.modules import ROOT
from tests.support.tiny_bundle import write_tiny

ADAPTERS = [ROOT / "examples" / name for name in ("glue_minilm/ept", "glue_smollm2/ept")]


@cache
def inspected(*arguments: str | Path, columns: int | None = None) -> str:
    """What it prints: into a pipe, or on a terminal with so many columns."""
    command = [sys.executable, "-W", "error", "-m", "eptx", "inspect", "-q", *map(str, arguments)]
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    if columns is None:
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with subprocess.Popen(command, env=env, stdout=theirs) as process, os.fdopen(ours, "rb") as terminal:
        os.close(theirs)
        data = b""
        while True:
            try:
                data += (block := os.read(terminal.fileno(), 1 << 16))
            except OSError:  # Linux ends a terminal so
                break
            if not block:
                break
        assert process.wait(60) == 0
    return data.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda path: path.parent.name)
def test_a_real_adapter_fits_a_screen(adapter: Path) -> None:
    said = inspected(adapter)
    lines = said.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    facts = json.loads(inspected(adapter, "--json"))
    assert f"modules: {len(facts['modules'])}, rank " in said
    kinds = {re.sub(r"\d+", "N", module["name"]) for module in facts["modules"]}
    rows = re.findall(r"^ +(\d+)  (\S+)$", said, re.MULTILINE)
    assert sum(int(count) for count, _ in rows) == len(facts["modules"]) and len(rows) == len(kinds)
    assert all(re.search(r"\.0-(5|29)\.", name) for _, name in rows)


def test_modules_names_every_module() -> None:
    said = inspected(ADAPTERS[0], "--modules")
    facts = json.loads(inspected(ADAPTERS[0], "--json"))
    assert max(map(len, said.splitlines())) <= 80
    assert re.findall(r"^([\w.]+); rank 16", said, re.MULTILINE) == [module["name"] for module in facts["modules"]]
    assert "task_experts cola [0, 6], mnli [2, 7]" in said


def test_a_bundle_uses_the_width_that_its_terminal_has(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny")
    wide, narrow = (inspected(tmp_path / "tiny", columns=columns) for columns in (160, 40))
    assert 80 < max(map(len, wide.splitlines())) <= 160
    assert max(map(len, narrow.splitlines())) <= 40
    row = ["sst2", "0", "2", "negative,", "positive", "single_label_classification"]
    assert row in [line.split() for line in wide.splitlines()]
    assert inspected(tmp_path / "tiny") == inspected(tmp_path / "tiny", columns=80)


#: Names of what people adapt: two numbers in one, numbers that are no layers', gaps, and what looks like a number.
NAMES = [
    *(f"model.layers.{n}.mlp.experts.{e}.w1" for n in (0, 1, 3) for e in range(3)),
    "model.layers.7.mlp.experts.5.w1",
    *(f"transformer.h.{n}.attn.c_attn" for n in (1, 2, 3, 8, 11)),
    *(f"/model/layers.{n}/attn/qkv_proj/MatMul" for n in range(4)),
    "layer.00",
    "layer.0",
    "layer.1",
    "conv2d",
    "fc1",
    "fc2",
    "7",
    "",
]


def expanded(name: str) -> set[str]:
    """The names that a group's name stands for."""
    parts = re.split(r"(?<![^./_])(\d+(?:[-,]\d+)+)(?![^./_])", name)
    choices = [[part] if index % 2 == 0 else _numbers(part) for index, part in enumerate(parts)]
    return {"".join(chosen) for chosen in itertools.product(*choices)}


def _numbers(part: str) -> list[str]:
    ranges = [run.partition("-") for run in part.split(",")]
    return [str(n) for first, _, last in ranges for n in range(int(first), int(last or first) + 1)]


@given(st.sets(st.sampled_from(NAMES), min_size=1).map(sorted))
def test_groups_stand_for_their_modules_and_no_others(names: Sequence[str]) -> None:
    found = groups(names)
    assert sorted(name for own in found.values() for name in own) == sorted(names)
    for name, own in found.items():
        assert expanded(name) == set(own)


def test_groups_of_real_names() -> None:
    assert list(groups(NAMES)) == [
        "model.layers.0-1,3.mlp.experts.0-2.w1",
        "model.layers.7.mlp.experts.5.w1",
        "transformer.h.1-3,8,11.attn.c_attn",
        "/model/layers.0-3/attn/qkv_proj/MatMul",
        "layer.00",
        "layer.0-1",
        "conv2d",
        "fc1",
        "fc2",
        "7",
        "",
    ]
    assert common([{"rank": 8, "on": True, "k": [1]}, {"rank": 4, "on": False, "k": [1]}]) == {
        "rank": "4 to 8",
        "k": [1],
    }


_TEXT = st.text(max_size=90)
_PLAIN = st.none() | st.booleans() | st.integers() | _TEXT
_ROW = st.fixed_dictionaries({"name": _TEXT, "rank": st.none() | st.integers(), "of": st.lists(_TEXT, max_size=4)})
_FACTS = st.dictionaries(
    st.text("abc_", min_size=1, max_size=12),
    _PLAIN | st.lists(_ROW, min_size=1, max_size=30) | st.dictionaries(st.text("ab", max_size=5), _PLAIN, max_size=4),
)


@given(_FACTS, st.integers(40, 120))
def test_any_facts_fit(facts: dict[str, Any], width: int) -> None:
    lines = fact_lines(facts, width)
    assert all(len(line) <= width and "\n" not in line for line in lines)


def test_of_many_rows_the_first_are_shown() -> None:
    lines = table_lines([{"name": f"task{n}", "id": n} for n in range(1000)], 80)
    assert len(lines) == 26 and lines[-1] == "and 976 more, which --json lists"
    assert lines[1].split() == ["task0", "0"]
