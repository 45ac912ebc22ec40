"""Small models of three kinds, and what a bundle of an adapter with three tasks must give on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import BertConfig, BertModel

import eptx
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from tests.matrix.cell import CALLS
from tests.matrix.row import Arrays, Kind, texts
from tests.support.decoders import write_decoder
from tests.support.encoder_decoders import write_encoder_decoder

TASKS = ("a", "b", "c")
#: The task of each row; 3 is the base.
ROWS = (2, 0, 3, 1)
TEXTS = texts(60)
BERT = ("query", "value", "output.dense")


def write_bert(folder: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    with quiet():
        BertModel(
            BertConfig(vocab_size=60, max_position_embeddings=16, initializer_range=0.3, **sizes)
        ).save_pretrained(folder)
    return folder


def answers(rows: int) -> Arrays:
    given = TEXTS(rows)
    return {**given, "decoder_input_ids": np.random.default_rng(8).integers(2, 60, (rows, 5))}


class Small(NamedTuple):
    """Its base, the class that is trained, what it reads, how a bundle of it is called, the adapted modules."""

    write: Callable[[Path], Path]
    trained: str
    reads: Callable[[int], Arrays]
    call: Kind
    targets: tuple[str, ...]


SMALL = {
    "bert": Small(write_bert, "BertModel", TEXTS, "forward", BERT),
    "llama": Small(
        lambda f: write_decoder("llama", f), "LlamaForCausalLM", TEXTS, "decoder", ("q_proj", "v_proj", "down_proj")
    ),
    "t5": Small(
        lambda f: write_encoder_decoder("t5", f),
        "T5ForConditionalGeneration",
        answers,
        "encoder-decoder",
        ("q", "v", "wo"),
    ),
}


def tensors_of(result: Any) -> dict[str, np.ndarray]:
    """The outputs of a forward."""
    return {name: value.numpy() for name, value in result.items() if isinstance(value, torch.Tensor)}


def compare(small: Small, base: Path, adapter: Path, inputs: Arrays, wanted: Sequence[Mapping[str, np.ndarray]]) -> str:
    """Exports an adapter in both modes, compares and validates; the method that the manifest names.

    Args:
        small: the kind of model.
        base: its folder.
        adapter: of `TASKS`.
        inputs: as many rows as `ROWS` has.
        wanted: what all rows give as each task, and as the base.
    """
    key = next(iter(wanted[0]))
    assert np.abs(wanted[0][key] - wanted[1][key]).max() > 0.05 < np.abs(wanted[0][key] - wanted[3][key]).max()
    names = [*TASKS, "base"]
    for mode, rows in (("conditioned", ROWS), ("static", (1,) * len(ROWS))):
        out = adapter.parent / mode
        one: dict[str, Any] = {"task": "b"} if mode == "static" else {}
        bundle = eptx.export(base, adapter, out, ExportOptions(mode=mode, tasks=TASKS, **one))  # type: ignore[arg-type]
        asked = None if mode == "static" else [names[row] for row in rows]
        found = CALLS[small.call](bundle, inputs, asked, [task.name for task in bundle.manifest.tasks])[key]
        for index, row in enumerate(rows):
            kept: Any = inputs["attention_mask"][index] == 1 if small.call != "encoder-decoder" else slice(None)
            want = wanted[row][key][index][kept]
            assert np.abs(found[index][kept] - want).max() <= 2e-5 * max(1, np.abs(want).max()), (mode, index)
        assert eptx.validate(out).passed, mode
    return bundle.manifest.method
