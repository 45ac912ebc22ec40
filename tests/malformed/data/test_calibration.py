"""Calibration data that the base cannot read, on a golden base: the PyTorch reference would fail in its depths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.malformed.scene import Cli

GOLDEN = Path(__file__).parents[2] / "golden" / "tucka_bert48"

ROWS: dict[str, tuple[dict[str, object], int, str]] = {
    "a token id too large": (
        {"input_ids": [1, 200]},
        3,
        "d.jsonl, line 1: holds token id 200; the base has token ids 0 to 199",
    ),
    "a token id past int64": ({"input_ids": [1, 2**70]}, 3, "the base has token ids 0 to 199"),
    "a negative token id": ({"input_ids": [1, -1]}, 3, "d.jsonl, line 1: must be an object"),
    "no token ids": ({"input_ids": []}, 3, "d.jsonl, line 1: must be an object"),
    "too many token ids": ({"input_ids": [1] * 65}, 3, "d.jsonl, line 1: is 65 tokens; the base reads at most 64"),
    "a label that there is not": (
        {"input_ids": [1, 2], "label": 3},
        3,
        "d.jsonl, line 1: a label of task0 is 3, out of range; they are 0 to 2",
    ),
    "text without a tokenizer": ({"text": "hello"}, 5, "base: has no tokenizer; give rows with input_ids"),
}


@pytest.mark.parametrize("name", ROWS)
def test_row(tmp_path: Path, cli: Cli, name: str) -> None:
    row, code, said = ROWS[name]
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    base, adapter = GOLDEN / "base", GOLDEN / "adapter"
    settings: list[str | Path] = ["--mode", "static", "--calibration-data", tmp_path / "d.jsonl"]
    cli.refuses(code, said, "export", "-q", base, adapter, "-o", tmp_path / "b", *settings)
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]
