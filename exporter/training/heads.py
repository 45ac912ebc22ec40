"""Task heads: one linear classifier (or regressor) per task on a pooled vector of the bare model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def pool(output: Any, attention_mask: Tensor | None, pooling: str) -> Tensor:
    """The vector ``[batch, hidden]`` that task heads read.

    Args:
        output: what the bare transformers model returned.
        attention_mask: ``[batch, length]``; None means that nothing is padded.
        pooling: ``pooler`` (the model's pooler), ``first`` (position 0), or ``mean`` (of unpadded ones).
    """
    if pooling == "pooler":
        pooled: Tensor = output.pooler_output
        return pooled
    hidden: Tensor = output.last_hidden_state
    if pooling == "first":
        return hidden[:, 0]
    if pooling != "mean":
        raise ValueError(f"pooling must be 'pooler', 'first' or 'mean', got {pooling!r}")
    if attention_mask is None:
        return hidden.mean(1)
    kept = attention_mask.to(hidden.dtype).unsqueeze(2)
    return (hidden * kept).sum(1) / kept.sum(1).clamp_min(1)


class TaskHeadBank(nn.Module):
    """Linear heads by task name; a task with one label is a regression."""

    def __init__(self, hidden: int, labels: Mapping[str, int]) -> None:
        super().__init__()
        self.tasks = list(labels)
        # Task names may hold dots, which module names may not.
        self.heads: Any = nn.ModuleList([nn.Linear(hidden, count) for count in labels.values()])

    @property
    def labels(self) -> list[int]:
        """Number of labels of each task."""
        return [head.out_features for head in self.heads]

    def forward(self, pooled: Tensor, tasks: Tensor) -> Tensor:
        """Logits ``[batch, largest label count]`` of each row's own task, zero past its label count.

        Rows whose task has no head (task ``base``) are all zero.
        """
        logits = pooled.new_zeros(pooled.shape[0], max(self.labels))
        tasks = tasks.to(pooled.device)
        for index, head in enumerate(self.heads):
            rows = (tasks == index).nonzero().squeeze(1)
            if len(rows):
                logits[rows, : head.out_features] = head(pooled[rows].to(head.weight.dtype)).to(logits.dtype)
        return logits

    def tensors(self) -> dict[str, Tensor]:
        """As saved in ``task_heads.safetensors``: ``<task>.weight`` [labels, hidden] and ``<task>.bias``."""
        saved = {}
        for task, head in zip(self.tasks, self.heads, strict=True):
            saved[f"{task}.weight"] = head.weight.detach()
            saved[f"{task}.bias"] = head.bias.detach()
        return saved

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], tasks: list[str]) -> TaskHeadBank:
        """The bank that :meth:`tensors` saved."""
        weights = {task: tensors[f"{task}.weight"] for task in tasks}
        bank = cls(next(iter(weights.values())).shape[1], {task: len(weight) for task, weight in weights.items()})
        bank.load_tensors(tensors)
        return bank

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights that :meth:`tensors` saved.

        Raises:
            KeyError: a task has no tensors.
            RuntimeError: they have another shape.
        """
        for task, head in zip(self.tasks, self.heads, strict=True):
            head.load_state_dict({part: tensors[f"{task}.{part}"] for part in ("weight", "bias")})
