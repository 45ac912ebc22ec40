"""One row as long as the base reads, and one prompt past every window: only they see what is wrong out there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import onnx_ir as ir
import pytest
import torch
import transformers

from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.exporter.validation import report_text, run
from eptx.exporter.validation.base.lookups import Lookups
from eptx.exporter.validation.contents.compare import Compared
from eptx.exporter.validation.inputs import inputs
from eptx.exporter.validation.inputs.prompts import Reach, generated_prompts, untried_prompts
from eptx.exporter.validation.inputs.random_batches import generated, untried
from eptx.exporter.validation.inputs.vocabulary import LONGEST_ROW, Vocabulary
from eptx.files.strict_json import dump_json, read_json_object
from tests.exporter.validation.adapters import linear_shapes, write_ept
from tests.exporter.validation.test_batches import manifest
from tests.exporter.validation.workshop import Workshop, failed_tasks, task
from tests.support.decoders import write_decoder

_WINDOW, _TABLE, _PAD = 240, 130, 1


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A tiny RoBERTa, whose 130 positions are for rows of 128 tokens."""
    folder = tmp_path_factory.mktemp("roberta")
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=_TABLE, pad_token_id=_PAD, type_vocab_size=1,
    )  # fmt: skip
    model = transformers.RobertaForSequenceClassification(config)
    with torch.no_grad():
        model.roberta.embeddings.position_embeddings.weight.mul_(10)
    model.save_pretrained(folder / "base")
    return Workshop(folder / "base", folder)


@pytest.fixture(scope="module")
def text(roberta: Workshop) -> Bundle:
    adapter = write_ept(roberta.path(), linear_shapes(roberta.base, ("query", "value")), seed=1, tasks=2)
    return roberta.export(adapter, mode="conditioned", top_k=2)


def change_rows(*rows: int) -> Callable[[ir.Graph], None]:
    """Rows of the position table are zero."""

    def change(graph: ir.Graph) -> None:
        (name,) = [name for name in graph.initializers if name.endswith("position_embeddings.weight")]
        value = graph.initializers[name]
        assert value.const_value is not None
        table = value.const_value.numpy().copy()
        assert len(table) == _TABLE
        table[list(rows)] = 0
        value.const_value = ir.Tensor(table, name=name)

    return change


def test_a_row_of_every_position(roberta: Workshop, text: Bundle) -> None:
    report = roberta.validate(text)
    assert report.passed, report.reason
    assert [i["shape"] for i in report.to_json()["inputs"] if i["name"] == "longest"] == [[1, _TABLE - _PAD - 1]]


def test_the_last_position_is_seen_in_the_longest_row_alone(roberta: Workshop, text: Bundle) -> None:
    """Even where the bundle says of itself that it reads 64 tokens, of a vocabulary of 20."""
    wrong = roberta.edited(text, change_rows(_TABLE - 1))
    said = read_json_object(wrong.path / "eptx.json", error=BundleError)
    (wrong.path / "eptx.json").write_bytes(dump_json(said | {"max_length": 64, "vocab_size": 20}))
    report = roberta.validate(wrong)
    assert failed_tasks(report) == {"task0"}
    assert task(report, "task0").failed_at == "roberta.encoder.layer.0.attention.self.query"
    with mock.patch.object(run, "compare_contents", return_value=Compared([], Lookups(positions=64))):
        assert roberta.validate(wrong).passed


def test_a_model_that_does_not_run_a_row_fails_by_its_name(roberta: Workshop, text: Bundle) -> None:
    """A table that ends early: ONNX Runtime refuses what is past it."""

    def cut(graph: ir.Graph) -> None:
        (name,) = [name for name in graph.initializers if name.endswith("position_embeddings.weight")]
        value = graph.initializers[name]
        assert value.const_value is not None
        short = ir.Tensor(value.const_value.numpy()[:100].copy(), name=name)
        value.const_value, value.shape = short, ir.Shape([100, 32])

    report = roberta.validate(roberta.edited(text, cut))
    assert failed_tasks(report) == {"task0"}
    assert "on the batch 'longest', the model does not run: " in str(task(report, "task0").reason)
    assert len(report.reason.splitlines()) == 1
    assert "fail: task task0 fails at model.onnx" in report_text(report)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("mistral")
    base = write_decoder("mistral", folder / "base", sliding_window=_WINDOW, max_position_embeddings=512)
    return Workshop(base, folder)


def set_window(size: int) -> Callable[[ir.Graph], None]:
    def change(graph: ir.Graph) -> None:
        nodes = [node for node in graph if node.op_type == "GroupQueryAttention"]
        assert nodes
        for node in nodes:
            node.attributes["local_window_size"] = ir.AttrInt64("local_window_size", size)

    return change


def test_a_wrong_window_is_seen_past_it_alone(mistral: Workshop) -> None:
    adapter = write_ept(mistral.path(), linear_shapes(mistral.base, ("q_proj", "v_proj")), seed=1, tasks=2)
    bundle = mistral.export(adapter, mode="conditioned", top_k=2)
    report = mistral.validate(bundle)
    assert report.passed, report.reason
    for size in (-1, _WINDOW - 1, _WINDOW + 1):
        wrong = mistral.edited(bundle, set_window(size))
        assert failed_tasks(mistral.validate(wrong)) == {"task0"}
    unseen = mock.patch.object(
        run, "compare_contents", return_value=Compared([], Lookups(positions=600))
    )  # no prompt to the end
    with unseen, mock.patch.object(inputs, "windows", return_value=()):
        assert mistral.validate(wrong).passed


def vocabulary(longest: int) -> Vocabulary:
    return Vocabulary(50, 1, longest, 0, 1, 2)


def test_rows_that_cost_too_much_are_told() -> None:
    names = ["t0", "t1"]
    longest = generated(manifest(), vocabulary(8192), names)[-1]
    assert (longest.name, longest.length, longest.inside) == ("longest", LONGEST_ROW, False)
    (check,) = untried(manifest(), vocabulary(8192))
    assert (check.name, check.how) == (f"rows of {LONGEST_ROW + 1} to 8192 tokens", "unchecked")
    assert check.why == f"the longest row that is tried has {LONGEST_ROW} tokens"
    assert untried(manifest(), vocabulary(LONGEST_ROW)) == []
    longest = generated(manifest(), vocabulary(512), names)[-1]
    assert (longest.length, longest.inside) == (512, True)
    # a base of 64 positions has its longest row already
    assert "longest" not in [batch.name for batch in generated(manifest(), vocabulary(64), names)]


def test_windows_that_no_prompt_reaches(text: Bundle) -> None:
    def names(longest: int, *sizes: int) -> list[str]:
        batches = generated_prompts(manifest(), vocabulary(longest), ["t0"], Reach(sizes))
        return [batch.name for batch in batches if "window" in batch.name]

    assert names(8192, 32) == []  # the prompt of 200 is past it
    assert names(8192, 240, 1024) == ["prompt of 1048, past the window"]
    assert names(8192, 240, 5000) == ["prompt of 264, past the window"]
    assert names(240, 240) == []  # a window as wide as the context hides nothing
    (context,) = untried_prompts(manifest(), vocabulary(8192), Reach((240,)))
    assert (context.name, context.how) == ("prompts of more than 264 tokens", "compared")
    check, _ = untried_prompts(manifest(), vocabulary(8192), Reach((240, 5000)))
    assert (check.name, check.how) == ("attention window of 5000 tokens", "unchecked")
    assert [p.how for p in untried_prompts(manifest(), vocabulary(4096), Reach((5000,)))] == ["compared"]
    assert untried_prompts(manifest(), vocabulary(512), Reach()) == []


def test_a_prompt_never_leaves_the_context() -> None:
    for longest in (250, 260, 512):
        batches = generated_prompts(manifest(), vocabulary(longest), ["t0"], Reach((240,)))
        assert max(batch.length for batch in batches) <= longest
        assert np.all([batch.arrays["input_ids"].max() < 50 for batch in batches])


def test_paths(tmp_path: Path) -> None:
    """What the base's file says wins over anything else, also where it leaves its figures to the class."""
    assert Vocabulary.of({"model_type": "bert"}, Lookups()).size == 30522
    assert Vocabulary.of({"model_type": "bert", "vocab_size": 40}, Lookups(positions=9)).longest == 9
