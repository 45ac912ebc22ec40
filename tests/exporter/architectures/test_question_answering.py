"""Adapters of PEFT's task type QUESTION_ANS, whose wrapper drops the token types; PEFT's own model is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eptx
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from tests.exporter.trained.models import inputs, outputs_of, peft_model, save, write_base

ANSWERS = "BertForQuestionAnswering"
QA: dict[str, Any] = {"target_modules": ["query"], "task_type": "QUESTION_ANS"}
TEXTS = inputs("bert")
TYPES = np.tile(np.array([0, 0, 0, 1, 1, 1, 1]), (3, 1))
CONDITIONED = ExportOptions(mode="conditioned")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base("bert", ANSWERS, tmp_path_factory.mktemp("qa") / "base")


def _same(bundle: Path, task: str, given: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    found = eptx.Session(bundle).run(given, task)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=2e-5 * max(1, np.abs(array).max()))


def test_no_token_types(base: Path, tmp_path: Path) -> None:
    model = peft_model(base, ANSWERS, **QA)
    adapter = save(model, tmp_path / "a")
    wanted = outputs_of(model, {**TEXTS, "token_type_ids": TYPES})
    under = outputs_of(model.get_base_model(), {**TEXTS, "token_type_ids": TYPES})
    assert np.abs(under["start_logits"] - wanted["start_logits"]).max() > 0.1
    for options in (CONDITIONED, ExportOptions(mode="static")):
        eptx.export(base, [adapter], tmp_path / options.mode, options)
        _same(tmp_path / options.mode, "task0", TEXTS, wanted)
        with pytest.raises(EptxError, match="token_type_ids"):
            eptx.Session(tmp_path / options.mode).run({**TEXTS, "token_type_ids": TYPES}, "task0")
    assert eptx.validate(tmp_path / "conditioned").passed


def test_another_class_reads_them(base: Path, tmp_path: Path) -> None:
    model = peft_model(base, ANSWERS, target_modules=["query"])  # PEFT notes the class, and wraps it in nothing
    other = save(model, tmp_path / "other")
    eptx.export(base, [other], tmp_path / "b", CONDITIONED)
    given = {**TEXTS, "token_type_ids": TYPES}
    _same(tmp_path / "b", "task0", given, outputs_of(model, given))

    adapter = save(peft_model(base, ANSWERS, 1, **QA), tmp_path / "a")
    eptx.export(base, [adapter], tmp_path / "c", CONDITIONED)
    for attempt in (
        lambda: eptx.export(base, [adapter, other], tmp_path / "out", CONDITIONED),
        lambda: eptx.add(tmp_path / "b", [adapter], tmp_path / "out"),
        lambda: eptx.add(tmp_path / "c", [other], tmp_path / "out"),
    ):
        with pytest.raises(EptxError, match="some of the adapters have task_type QUESTION_ANS") as refused:
            attempt()
        assert refused.value.exit_code == 5
        assert not (tmp_path / "out").exists()
