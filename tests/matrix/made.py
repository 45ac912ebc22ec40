"""A row on disk: its base folder, adapters as PEFT saves them, and what PEFT's own forward gives with each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import PeftModel, get_peft_model
from torch import nn

from eptx.exporter.quiet import quiet
from tests.matrix.row import Arrays, Row

#: Gives the PEFT configuration of adapter number i on a model.
Configs = Callable[[Row, Any, int], Any]
ROWS = 4


@dataclass(frozen=True)
class Made:
    """A base and adapters on it.

    Attributes:
        base: its folder.
        adapters: their folders; the tasks are called as these.
        inputs: of `ROWS` rows.
        outputs: what PEFT gives with each adapter, and without one last, for all rows.
    """

    base: Path
    adapters: list[Path]
    inputs: Arrays
    outputs: list[Arrays]


def make(row: Row, configs: Configs, folder: Path, *, count: int | None = None) -> Made:
    """Writes a row to disk, and asks PEFT what it computes.

    Args:
        row: the architecture.
        configs: the adapters' configurations.
        folder: an empty one.
        count: how many adapters; None: as the row says.
    """
    base, inputs = folder / "base", row.inputs(ROWS)
    with quiet():
        write_base(row, base)
        adapters, outputs = [], []
        for index in range(row.adapters if count is None else count):
            adapters.append(folder / f"task{index}")
            _write_adapter(row, base, configs, index, adapters[-1])
            model = PeftModel.from_pretrained(_load(row, base, index), adapters[-1])
            outputs.append(forward(model, inputs))
        outputs.append(forward(_load(row, base), inputs))
    if not all(_differ(own, outputs[-1]) for own in outputs[:-1]):
        raise AssertionError(f"{row.name}: an adapter changes nothing")
    return Made(base, adapters, inputs, outputs)


def write_base(row: Row, folder: Path) -> None:
    """The base's folder, with weights of which every one can be seen in the outputs."""
    torch.manual_seed(0)
    config_class, settings = row.config
    config = getattr(transformers, config_class)(**settings)
    model = getattr(transformers, row.base or row.trained)(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif name.endswith("weight"):
                parameter.mul_(2)  # the default's 0.02 gives outputs that hardly differ
    model.save_pretrained(folder)
    if row.prepare is not None:
        row.prepare(folder)


def linear_names(row: Row, model: Any) -> list[str]:
    """The last parts of the names of linear layers that adapters adapt."""
    if row.targets is not None:
        return list(row.targets)
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    saved = ("classifier", "score", "qa_outputs", "lm_head", *(row.peft.get("modules_to_save") or ()))
    adaptable = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)
    modules = [(name, name.rpartition(".")[2], module) for name, module in model.named_modules()]
    others = {last for _, last, module in modules if not isinstance(module, adaptable)}  # PEFT refuses these
    found = {
        last: None
        for name, last, module in modules
        if isinstance(module, nn.Linear) and module is not head and last not in others
        if not any(part in saved for part in name.split("."))
    }
    return list(found)


def forward(model: Any, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """A model's own outputs by name."""
    model.eval()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        result = model(**tensors)
    return {name: value.numpy() for name, value in result.items() if isinstance(value, torch.Tensor)}


def _load(row: Row, base: Path, adapter: int | None = None) -> Any:
    torch.manual_seed(0)  # a head that the base does not have is random, and the adapter's takes its place
    model = getattr(transformers, row.trained).from_pretrained(base, dtype=torch.float32)
    more = dict(enumerate(row.tokens)).get(-1 if adapter is None else adapter, 0)
    if more:
        model.resize_token_embeddings(model.config.vocab_size + more)
    return model


def _write_adapter(row: Row, base: Path, configs: Configs, index: int, folder: Path) -> None:
    model = _load(row, base, index)
    torch.manual_seed(100 + index)
    peft = get_peft_model(model, configs(row, model, index))
    with torch.no_grad():
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    peft.save_pretrained(folder)


def _differ(one: Arrays, other: Arrays) -> bool:
    shared = [name for name in one if name in other and one[name].shape == other[name].shape]
    return not shared or any(np.abs(one[name] - other[name]).max() > 1e-3 for name in shared)


def names(made: Made) -> Sequence[str]:
    """The tasks by id."""
    return [folder.name for folder in made.adapters]
