"""Weights quantized one at a time are what GenAI's builder makes of all at once, to the byte."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import pytest

from eptx.exporter.bases import load_genai
from eptx.exporter.bases.loaders import genai_builder
from tests.support.decoders import DECODERS, write_decoder


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
@pytest.mark.parametrize("name", list(DECODERS))
def test_the_bytes_are_the_builders(
    name: str,
    provider: Literal["cpu", "cuda"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = write_decoder(name, tmp_path / "base")

    def built(folder: Path) -> list[bytes]:
        load_genai(base, folder, precision="int4", provider=provider)
        return [(folder / file).read_bytes() for file in ("model.onnx", "model.onnx.data")]

    one_at_a_time = built(tmp_path / "one")
    assert b"MatMulNBits" in one_at_a_time[0]
    monkeypatch.setattr(genai_builder, "one_weight_at_a_time", lambda _: nullcontext())
    assert one_at_a_time == built(tmp_path / "all")
