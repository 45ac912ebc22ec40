"""DeBERTa-v2's attention with relative positions that may differ from row to row.

transformers projects the relative positions once, [1, 2k, H], and repeats the result for every row of the batch. With
``share_att_key`` it does so with the layers of the text, ``key_proj`` and ``query_proj``, so an adapter that differs
per row gives each row positions of its own, [N, 2k, H], which cannot be repeated. Here the same scores

    c2p[n, h, i, j] = q[n, h, i] . K[n or 0, h, bucket(i - j)]  / scale
    p2c[n, h, i, j] = k[n, h, j] . Q[n or 0, h, bucket(i - j)]  / scale

come from products that broadcast over the rows, so both fit, and nothing is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DebertaV2Config
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

__all__ = ["allow_positions_per_row"]

#: Entered while the positions are projected.
Around = Callable[[], AbstractContextManager[None]]


def allow_positions_per_row(
    model: nn.Module, around: Around = nullcontext, needed: Callable[[], bool] = lambda: True
) -> None:
    """Changes every DeBERTa-v2 attention of a model in place; it computes what it did.

    Nothing happens where the installed transformers' attention computes something else than what is written here: a
    model then takes adapters that differ per row nowhere near its positions, as any other.

    Args:
        model: any model, before or after its layers were adapted.
        around: entered while the positions are projected: how an adapted layer knows that its input has no rows.
        needed: asked in every forward; where rows do not differ, transformers' own code runs.
    """
    for module in model.modules():
        if isinstance(module, DisentangledSelfAttention) and module.relative_attention and _is_known():
            _change(module, around, needed)


class _PerRowAttention(DisentangledSelfAttention):
    """transformers' attention, but for the scores of the relative positions."""

    around: Around
    needed: Callable[[], bool]

    def disentangled_attention_bias(
        self,
        query_layer: Tensor,
        key_layer: Tensor,
        relative_pos: Tensor,
        rel_embeddings: Tensor,
        scale_factor: int,
    ) -> Tensor:
        """The scores [N * heads, L, L] of rows' queries and keys, each [N * heads, L, d], with the positions.

        Args:
            query_layer: of the text.
            key_layer: of the text, of the same length.
            relative_pos: int64 [1, L, L], the bucket of each pair of positions.
            rel_embeddings: [2k or more, H].
            scale_factor: how many kinds of scores are added up.
        """
        if not self.needed():
            own: Tensor = super().disentangled_attention_bias(  # type: ignore[no-untyped-call]
                query_layer, key_layer, relative_pos, rel_embeddings, scale_factor
            )
            return own
        span = self.pos_ebd_size
        positions = rel_embeddings[: 2 * span].unsqueeze(0)
        buckets = relative_pos.reshape(1, 1, *relative_pos.shape[-2:])
        scale = torch.sqrt(torch.tensor(query_layer.shape[-1] * scale_factor, dtype=torch.float)).to(query_layer)
        shared = self.share_att_key
        scores = torch.zeros_like(scale)
        # queries first, as transformers projects them: a router among these layers routes at every call
        queries = self._project(self.query_proj, positions) if shared else None
        if "c2p" in self.pos_att_type:
            keys = self._project(self.key_proj if shared else self.pos_key_proj, positions)
            index = torch.clamp(buckets + span, 0, 2 * span - 1)
            scores = scores + self._pick(query_layer, keys, index) / scale
        if "p2c" in self.pos_att_type:
            queries = self._project(self.pos_query_proj, positions) if queries is None else queries
            index = torch.clamp(span - buckets, 0, 2 * span - 1)
            scores = scores + self._pick(key_layer, queries, index).transpose(-1, -2) / scale
        return scores.flatten(0, 1)

    def _project(self, layer: nn.Module, positions: Tensor) -> Tensor:
        """[1, 2k, H] to [1 or N, heads, d, 2k]."""
        with self.around():
            projected: Tensor = layer(positions)
        # -1, not the 1 that is there: the graph keeps this view where the layer's output has rows
        by_head = projected.view(-1, positions.shape[1], self.num_attention_heads, self.attention_head_size)
        return by_head.permute(0, 2, 3, 1)

    def _pick(self, content: Tensor, positions: Tensor, index: Tensor) -> Tensor:
        """Of the scores of the content [N * heads, L, d] with all positions, those of each pair: [N, heads, L, L]."""
        by_head = content.view(-1, self.num_attention_heads, *content.shape[1:])
        scores = torch.matmul(by_head, positions)
        return torch.gather(scores, -1, index.expand(*scores.shape[:2], *index.shape[2:]))


def _change(attention: Any, around: Around, needed: Callable[[], bool]) -> None:
    attention.__class__ = _PerRowAttention
    attention.around, attention.needed = around, needed


@cache
def _is_known() -> bool:
    """Whether the installed transformers' attention is the one that is written here, by what it computes."""
    try:
        return all(_agrees(shared) for shared in (True, False))
    except (TypeError, AttributeError, RuntimeError):  # other arguments, names or shapes
        return False


def _agrees(shared: bool) -> bool:
    config = DebertaV2Config(hidden_size=4, num_attention_heads=2, relative_attention=True, pos_att_type=["c2p", "p2c"])
    config.update({"position_buckets": 3, "share_att_key": shared})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        attention: Any = DisentangledSelfAttention(config).eval()  # type: ignore[no-untyped-call]
        query, key, embeddings = torch.randn(4, 5, 2), torch.randn(4, 5, 2), torch.randn(6, 4)
        buckets = torch.randint(-3, 4, (1, 5, 5))
        wanted = attention.disentangled_attention_bias(query, key, buckets, embeddings, 3)
        _change(attention, nullcontext, lambda: True)
        return torch.allclose(
            attention.disentangled_attention_bias(query, key, buckets, embeddings, 3), wanted, atol=1e-5
        )
