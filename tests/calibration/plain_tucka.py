"""TuckA on a plain transformers model, by hooks on its linear layers: from the formulas, not from eptx's layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from eptx.runtime.measure import Row

_PREFIX = "base_model.model."
#: A group, and the weights of its experts.
Chosen = tuple[int, Sequence[float]]


class PlainTucka:
    """A model with an adapter in it, one row at a time in float64.

    Args:
        model: with a head of its own, or with the adapter's task heads over its ``base_model``'s mean.
        adapter: the folder.

    Attributes:
        affinities: what the router of the last forward gave every group's experts, [k, t] for each of its calls.
    """

    def __init__(self, model: Any, adapter: Path) -> None:
        self._model = model.double().eval()
        self._tensors = {k.removeprefix(_PREFIX): v.double() for k, v in _weights(adapter, "adapter_model").items()}
        self._heads = {k: v.double() for k, v in _weights(adapter, "task_heads").items()}
        self._alpha = json.loads((adapter / "adapter_config.json").read_text())["alpha"]
        self._route: tuple[int, Tensor] | None = None
        self._frozen: Sequence[Chosen | None] = ()
        self.affinities: list[np.ndarray] = []
        for name in {key.rpartition(".")[0] for key in self._tensors}:
            model.get_submodule(name).register_forward_pre_hook(self._hook(name))

    @property
    def affinity(self) -> np.ndarray:
        """Of the first call."""
        return self.affinities[0]

    @property
    def group(self) -> int:
        """That the first call chose."""
        return int(self.affinity.max(1).argmax())

    def run(self, row: Row, frozen: Sequence[Chosen | None] = ()) -> np.ndarray:
        """Logits [labels] of a row; of one with an answer, how likely its tokens are.

        Args:
            row: the row.
            frozen: what the router's calls give instead of what they compute; None: what they compute.
        """
        self._frozen, self._route, self.affinities = frozen, None, []
        with torch.no_grad():
            found: np.ndarray = self._run(row).numpy()
        return found

    def _run(self, row: Row) -> Tensor:
        model, ids = self._model, list(row.input_ids or ())
        if self._heads:
            mean = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
            return torch.nn.functional.linear(mean, self._heads[f"{row.task}.weight"], self._heads[f"{row.task}.bias"])
        answer = list(row.label) if isinstance(row.label, tuple) else []
        if model.config.is_encoder_decoder:
            begun = torch.tensor([[model.config.decoder_start_token_id, *answer[:-1]]])
            logits: Tensor = model(input_ids=torch.tensor([ids]), decoder_input_ids=begun).logits[0]
        else:
            logits = model(input_ids=torch.tensor([ids + answer])).logits[0]
            logits = logits[len(ids) - 1 : -1] if answer else logits
        return logits.softmax(-1)[range(len(answer)), answer] if answer else logits

    def _hook(self, name: str) -> Any:
        u, g, c = (self._tensors[f"{name}.tucka_{factor}"] for factor in "ugc")
        centroids = self._tensors.get(f"{name}.tucka_ec")

        def hook(layer: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            (x,) = args
            if centroids is not None:
                logits = (centroids @ x.mean((0, 1))).reshape(len(g), -1)
                affinity = torch.sigmoid(logits / logits.norm(dim=1, keepdim=True))
                group = int(affinity.amax(1).argmax())
                self._route = group, affinity[group]
                told = self._frozen[len(self.affinities)] if self._frozen else None
                if told is not None:
                    self._route = told[0], torch.tensor(told[1], dtype=torch.float64)
                self.affinities.append(affinity.numpy())
            assert self._route is not None
            group, weights = self._route
            core = g[group] / g[group].norm()
            mixed = sum(w * sum(c[t, p] / c.norm() * core[p] for p in range(len(core))) for t, w in enumerate(weights))
            return (x + self._alpha * x @ (u / u.norm()) @ mixed @ (u / u.norm()).T,)

        return hook


def _weights(adapter: Path, name: str) -> dict[str, Tensor]:
    file = adapter / f"{name}.safetensors"
    return load_file(file) if file.exists() else {}
