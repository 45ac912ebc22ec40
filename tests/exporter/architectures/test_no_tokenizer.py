"""Decoders whose base has no tokenizer: exported, judged, asked by token ids; texts are refused where they come."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import RequestError
from eptx.exporter import ExportOptions
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.runtime.session import Session
from tests.exporter.validation.adapters import linear_shapes, write_ept
from tests.malformed.scene import Cli
from tests.runtime.serving.servers import serving
from tests.support.decoders import write_decoder
from tests.support.trained import by_task, trained_model

_REFUSED = "this bundle has no tokenizer.json; give arrays such as input_ids instead of text"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = write_decoder("llama", tmp_path_factory.mktemp("bare") / "base")
    for path in base.iterdir():
        if path.name not in ("config.json", "generation_config.json", "model.safetensors"):
            path.unlink()
    return base


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    shapes = linear_shapes(base, ("q_proj", "down_proj"))
    return write_ept(base.parent / "ept", shapes, seed=1, tasks=2, sizes=(2, 3, 3, 5), strength=0.2)


@pytest.fixture(scope="module")
def bundle(base: Path, adapter: Path) -> Bundle:
    return export_bundle(base, [adapter], base.parent / "bundle", ExportOptions(mode="conditioned", top_k=2))


def test_it_is_exported_and_judged(base: Path, adapter: Path, bundle: Bundle) -> None:
    beside = {path.name for path in bundle.path.iterdir()}
    assert {"config.json", "generation_config.json", "genai_config.json"} <= beside
    assert not [name for name in beside if "token" in name or "vocab" in name]
    report = validate_bundle(bundle.path, ValidateOptions(base=base, adapters=[adapter], top_k=2, providers=["cpu"]))
    assert report.passed, report.reason


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_static(base: Path, adapter: Path, tmp_path: Path, precision: str) -> None:
    options = ExportOptions(mode="static", task="task1", top_k=2, precision=precision)  # type: ignore[arg-type]
    bundle = export_bundle(base, [adapter], tmp_path / "static", options)
    assert not (bundle.path / "tokenizer.json").exists()
    assert len(Session(bundle.path).generate([[5, 6]], max_new_tokens=3).token_ids[0]) <= 3


def test_token_ids_are_answered_and_texts_refused(base: Path, adapter: Path, bundle: Bundle) -> None:
    session, prompt = Session(bundle.path), [5, 17, 40]
    (answer,) = session.generate([prompt], "task1", max_new_tokens=6).token_ids
    row = [*prompt, *answer]
    inputs = {"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)}
    logits = by_task(trained_model(base, [adapter], top_k=2), inputs, [1]).outputs["logits"][0]
    assert list(answer) == logits[len(prompt) - 1 : -1].argmax(1).tolist()
    with pytest.raises(RequestError, match=_REFUSED):
        session.generate("w5 w17", "task1")


def test_texts_on_the_command_line(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    Cli(capfd).refuses(3, _REFUSED, "run", "--quiet", bundle.path, "w5 w17", "--task", "task1")


def test_texts_over_http(bundle: Bundle, tmp_path: Path) -> None:
    with serving(tmp_path, bundle.path) as server:
        request = {"text_input": "w5 w17", "parameters": {"task": "task1"}}
        status, _, body = server.call("POST", f"/v2/models/{bundle.path.name}/generate", request)
        assert (status, json.loads(body)) == (400, {"error": _REFUSED})
