"""One line of the exporter broken, in a way that runs of ordinary length do not show: only the comparison notices."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import numpy as np
import onnx_ir as ir
import pytest

from eptx.bundle import Bundle
from eptx.calibration import export as exporter
from eptx.exporter.bundle.write import Adapted
from eptx.runtime import Session
from tests.exporter.validation.contents.tensors.bases import Base, Change, Made, attribute, replaced, wrongs
from tests.support.decoders import Steps

LLAMA = {"vocab_size": 400, "max_position_embeddings": 512}
PROMPT = [list(range(3, 103))]


def _broken(base: Base, change: Change) -> Bundle:
    """What an exporter writes that changes its graph just before it stores it."""
    store = exporter.store

    def after(adapted: Adapted) -> None:
        change(adapted.graphs[0].graph.model.graph)
        store(adapted)

    with mock.patch.object(exporter, "store", after):
        return base.workshop.export(base.adapters, mode="conditioned")


def _end_zeroed(array: np.ndarray) -> None:
    array[120:] = 0


def _cut(graph: ir.Graph) -> None:
    for name in ("cos_cache", "sin_cache"):
        replaced(name, lambda array: array[:256])(graph)


def _swap_last(array: np.ndarray) -> None:
    array[[-1, -2]] = array[[-2, -1]]


BREAKS: dict[str, tuple[Change, set[str]]] = {
    "word rows": (replaced("model.embed_tokens.weight", _swap_last), {"model.embed_tokens.weight"}),
    "rotary rows": (replaced("sin_cache", _end_zeroed), {"rotary table sin_cache"}),
    "rotary length": (_cut, {"rotary table cos_cache", "rotary table sin_cache"}),
    "window": (attribute(1, "local_window_size", 128), {"attention of layer 1"}),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_decoder(made: Made, kind: str) -> None:
    base, (change, checks) = made("llama", **LLAMA), BREAKS[kind]
    broken = _broken(base, change)
    task = np.zeros(1, np.int64)
    honest, found = (Steps(bundle).prefill(PROMPT, task_id=task) for bundle in (base.bundle(), broken))
    assert all(np.array_equal(honest[name], found[name]) for name in honest)
    assert set(wrongs(base.checks(broken))) == checks
    assert wrongs(base.checks(base.bundle())) == {}


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("position_embeddings", lambda array: np.where(np.arange(40)[:, None] < 20, array, 0)),
        ("word_embeddings", _swap_last),
    ],
)
def test_an_encoder(made: Made, table: str, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    base, name = made("bert"), f"bert.embeddings.{table}.weight"
    broken = _broken(base, replaced(name, change))
    ids = np.arange(3, 19)[None]
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    honest, found = (Session(bundle).run(feeds, task=["base"]) for bundle in (base.bundle(), broken))
    assert np.array_equal(honest["logits"], found["logits"])
    assert set(wrongs(base.checks(broken))) == {name}
