"""What tests of released codes share: layers in the place of a base's, what runs them, and damaged files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

import eptx
from eptx.errors import EptxError
from eptx.exporter.quiet import quiet
from tests.exporter.methods.family import tensors_of
from tests.matrix.row import Arrays

Change = Callable[[dict[str, Tensor]], None]


class Layer(nn.Module):
    """One linear layer; `task` is of all rows, None for the layer alone."""

    task: ClassVar[int | None] = None

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    @property
    def weight(self) -> Tensor:
        """T5 asks for its type."""
        return self.inner.weight

    def update(self, x: Tensor) -> Tensor:
        """What is added for the task."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y if Layer.task is None else y + self.update(x)


def replaced(base: Path, kind: str, targets: tuple[str, ...], make: Callable[[nn.Linear], Layer]) -> Any:
    """A model with such layers."""
    torch.manual_seed(3)
    with quiet():
        model: Any = getattr(transformers, kind).from_pretrained(base).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(targets):
            model.set_submodule(name, make(module))
    return model


def own(model: Any, prefix: str = "base_model.model.") -> dict[str, Tensor]:
    """What such layers hold, by their names."""
    return {prefix + name: tensor for name, tensor in model.state_dict().items() if "lora_" in name}


def outputs(model: Any, inputs: Arrays, tasks: Iterable[int | None]) -> list[dict[str, np.ndarray]]:
    """Of all rows as each of the tasks."""
    tensors, found = {name: torch.from_numpy(array) for name, array in inputs.items()}, []
    for task in tasks:
        Layer.task = task
        with torch.no_grad():
            found.append(tensors_of(model(**tensors)))
    Layer.task = None
    return found


def drop(ending: str) -> Change:
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors[next(name for name in tensors if name.endswith(ending))]

    return change


def put(ending: str, make: Callable[[Tensor], Tensor], name: str = "") -> Change:
    """Changes a tensor, or adds one of another name, made of it."""

    def change(tensors: dict[str, Tensor]) -> None:
        found = next(name for name in tensors if name.endswith(ending))
        tensors[name or found] = make(tensors[found]).clone()

    return change


def refused(file: Path, out: Path, settings: dict[str, Any], code: int, said: str) -> None:
    """Converting a file is refused with one line, and leaves nothing."""
    with pytest.raises(EptxError) as caught:
        eptx.convert(file, out, settings)
    assert said in str(caught.value) and "\n" not in str(caught.value), str(caught.value)
    assert caught.value.exit_code == code
    assert not out.exists()
