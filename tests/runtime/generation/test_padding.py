"""TuckA's released router counts padding: a ragged batch answers as transformers' `generate` does on what it pads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from eptx import Session
from eptx.calibration import export_bundle
from eptx.errors import RequestError
from eptx.exporter import ExportOptions
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.exporter.validation.adapters import linear_shapes, write_tucka
from tests.exporter.validation.wrong.edits import manifest
from tests.runtime.cpp.library import Session as NativeSession
from tests.support.decoders import write_decoder
from tests.support.trained import as_task, trained_model

NEW = 16
PROMPTS = [np.random.default_rng(n).integers(8, 120, length).tolist() for n, length in enumerate((3, 14, 1, 9))]
#: name -> the tokenizer's padding, the configuration's, what transformers pads with
PADDING: dict[str, tuple[str | None, int | None, int]] = {
    "the tokenizer's alone": ("w7", None, 7),
    "the tokenizer's before the configuration's": ("w5", 0, 5),
    "the token that ends answers": ("w2", None, 2),
    "the configuration's": (None, 6, 6),
    "nobody's": (None, None, 2),  # `generate` says: setting pad_token_id to eos_token_id
}


def _base(folder: Path, named: str | None, configured: int | None) -> Path:
    base = write_decoder("llama", folder, max_position_embeddings=128, pad_token_id=configured)
    path = base / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("pad_token")
    path.write_text(json.dumps(settings | ({"pad_token": named} if named else {})))
    return base


@pytest.fixture(scope="module", params=PADDING)
def padded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int, Any]:
    """A base's folder, its adapter's, the token that pads, and a bundle of the two."""
    named, configured, pad = PADDING[request.param]
    root = tmp_path_factory.mktemp("padded")
    base = _base(root / "base", named, configured)
    adapter = write_tucka(root / "tucka", linear_shapes(base, ("q_proj", "v_proj", "down_proj")), seed=2, strength=0.5)
    return base, adapter, pad, export_bundle(base, [adapter], root / "bundle", ExportOptions(mode="dynamic"))


def _answers(base: Path, adapter: Path, pad: int) -> list[list[int]]:
    """Of transformers' own `generate`, which pads on the left."""
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    batch = tokenizer.pad({"input_ids": PROMPTS}, return_tensors="pt")
    with as_task(trained_model(base, [adapter]), [0], routing="batch") as model, torch.no_grad():
        made = model.generate(**batch, max_new_tokens=NEW, do_sample=False, pad_token_id=pad)
    rows = made[:, batch["input_ids"].shape[1] :].tolist()
    return [row[: row.index(2) + 1] if 2 in row else row for row in rows]


def test_ragged_prompts(padded: tuple[Path, Path, int, Any]) -> None:
    base, adapter, pad, bundle = padded
    assert bundle.manifest.generation.pad == pad
    assert json.loads((bundle.path / "genai_config.json").read_text())["model"]["pad_token_id"] == pad
    made = Session(bundle, threads=1).generate(PROMPTS, max_new_tokens=NEW)
    assert [list(ids) for ids in made.token_ids] == _answers(base, adapter, pad)


def test_ragged_prompts_in_cpp(padded: tuple[Path, Path, int, Any]) -> None:
    base, adapter, pad, bundle = padded
    made = NativeSession(bundle.path).generate(PROMPTS, None, max_new_tokens=NEW)
    assert [list(answer.tokens) for answer in made] == _answers(base, adapter, pad)


def test_validation_knows_it(padded: tuple[Path, Path, int, Any]) -> None:
    *_, pad, bundle = padded
    assert validate_bundle(bundle.path, ValidateOptions(providers=["cpu"])).passed
    manifest(lambda value: value["generation"].update(pad=pad + 1))(bundle.path)
    try:
        report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    finally:
        manifest(lambda value: value["generation"].update(pad=pad))(bundle.path)
    assert not report.passed
    assert f"says {pad + 1}; the trained model is padded with {pad}" in report.reason


def test_a_prompt_that_ends_in_padding_is_refused(padded: tuple[Path, Path, int, Any]) -> None:
    *_, pad, bundle = padded
    with pytest.raises(RequestError, match=f"prompt 1 ends in token {pad}, which this bundle pads with"):
        Session(bundle, threads=1).generate([[9], [9, pad]], max_new_tokens=2)
