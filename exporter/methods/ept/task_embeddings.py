"""Teaching EPT's modules to tell the task of a row that they are not told (``task_id`` -1).

While training, each row's task is told: the adapted layers then write it into position 0 themselves, and the task
embeddings learn to read that mark instead of the text. So the embeddings are fitted once more, alone, on rows of
which nothing is told. The gates read the embeddings too; they are solved for afterwards, so that every task keeps
its experts and their weights, and what the adapter computes for a given task does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eptx.exporter.methods.ept.layer import TEMPERATURE, EptLinear
from eptx.exporter.methods.tuner import INFER

_NO_VARIATION = 1e-5


def fit_task_embeddings(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    *,
    rounds: int = 3,
    steps: int = 100,
    learning_rate: float = 2e-2,
    log: Callable[[str], None] = print,
) -> None:
    """Fit every module's task embedding to position 0 of its input, with the tasks inferred as at inference.

    What a module reads depends on what the modules before it inferred, so rows are run again after every fit, later
    fits see the inputs of all rounds, and the embeddings that found the most tasks are kept. A module whose input
    tells nothing (BERT's first query, key and value read the same vector in every row) keeps its embedding: fitting
    noise would only make it choose differently each time.

    Args:
        model: a PEFT model with a trained EPT adapter; left in evaluation mode.
        batches: rows of all tasks, about as many of each: the base's inputs and ``task``, int64 ``[batch]``.
        rounds: number of fits.
        steps: of Adam on all rows, in every fit.
        learning_rate: of Adam, on embeddings of norm 1.
        log: told how many rows' tasks were found after every fit.
    """
    tuner: Any = model.base_model
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, EptLinear)]
    name = layers[0].active_adapters[0]
    wanted = [_gate_logits(layer, name).detach() for layer in layers]
    inputs: list[list[Tensor]] = [[] for _ in layers]
    tasks = torch.cat([batch["task"] for batch in batches])
    best, kept = -1.0, []
    model.eval()
    for number in range(rounds + 1):
        found = []
        for batch in batches:
            for seen, first in zip(inputs, _first_positions(model, tuner, layers, batch), strict=True):
                seen.append(F.normalize(first, dim=1))
            found.append(tuner.state.similarity.argmax(1))
        right = float((torch.cat(found) == tasks).double().mean())
        log(f"embeddings after {number} fits: {right:.3f} of the rows right")
        if right > best:
            best, kept = right, [layer.lora_task_embedding[name].weight.detach().clone() for layer in layers]
        if number == rounds:
            break
        for layer, seen, logits in zip(layers, inputs, wanted, strict=True):
            own = layer.lora_task_embedding[name].weight.detach()
            _place(layer, name, _fit(own, torch.cat(seen), tasks.repeat(number + 1), steps, learning_rate), logits)
    for layer, embedding, logits in zip(layers, kept, wanted, strict=True):
        _place(layer, name, embedding, logits)


def _fit(start: Tensor, x: Tensor, tasks: Tensor, steps: int, learning_rate: float) -> Tensor:
    """Embeddings ``[tasks, in]`` of norm 1 that minimize the contrastive task loss on inputs ``[rows, in]``."""
    if float(x.std(0).max()) < _NO_VARIATION:
        return start
    embedding = nn.Parameter(F.normalize(start.float(), dim=1))
    optimizer = torch.optim.Adam([embedding], lr=learning_rate)
    for _ in range(steps):
        loss = F.cross_entropy(x @ F.normalize(embedding, dim=1).t() / TEMPERATURE, tasks)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return F.normalize(embedding.detach(), dim=1)


def _first_positions(model: nn.Module, tuner: Any, layers: list[Any], batch: Mapping[str, Tensor]) -> list[Tensor]:
    """Position 0 of every layer's input, ``[batch, in]`` each, in a forward that infers all tasks."""
    seen: dict[Any, Tensor] = {}

    def look(layer: nn.Module, args: tuple[Any, ...]) -> None:
        seen[layer] = tuner.state.as_rows(args[0])[:, 0].float()

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with torch.no_grad():
            inputs = {name: value for name, value in batch.items() if name not in ("task", "labels")}
            model(**inputs, task=torch.full_like(batch["task"], INFER))
    finally:
        for hook in hooks:
            hook.remove()
    return [seen[layer] for layer in layers]


def _gate_logits(layer: Any, name: str) -> Tensor:
    gate = layer.lora_gate[name][0]
    logits: Tensor = gate(layer.lora_task_embedding[name].weight)
    return logits


def _place(layer: Any, name: str, embedding: Tensor, logits: Tensor) -> None:
    """Set an embedding, and the gate nearest to the present one that gives the same logits from it."""
    gate = layer.lora_gate[name][0]
    with torch.no_grad():
        layer.lora_task_embedding[name].weight.copy_(embedding)
        e = embedding.double()
        missing = logits.double() - gate.bias.double() - e @ gate.weight.double().t()
        gate.weight.add_((torch.linalg.pinv(e) @ missing).t().to(gate.weight.dtype))
