"""How many words and positions a model knows, from the tables in which it looks up rows.

Models number positions in many ways: from 0, from behind the padding's id (RoBERTa, MPNet, ESM, Longformer), from 2
(BART). So the model runs on a few tokens while every look-up is recorded: the table that is indexed by the tokens
themselves is that of words, and the one that is indexed by consecutive numbers is that of positions.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.modeling_outputs import MoEModelOutput

from eptx.bundle import TensorSpec
from eptx.exporter.validation.base.example import example
from eptx.exporter.validation.base.source import listed
from eptx.exporter.validation.base.windows import context

_TEXT = tuple(TensorSpec(name, "int64", ("batch", "length")) for name in ("input_ids", "attention_mask"))
#: So many tokens are enough to tell consecutive numbers from others.
_TOKENS = 6


@dataclass
class Lookups:
    """The sizes of a model's tables.

    Attributes:
        words: rows of the table of words, the most of all tasks'; None without one.
        of_tasks: the same of each task that has fewer.
        positions: how many tokens the table of positions serves; None without one.
        context: how many tokens the configuration names; None if it names none.
    """

    words: int | None = None
    of_tasks: Mapping[str, int] = field(default_factory=dict)
    positions: int | None = None
    context: int | None = None

    @property
    def longest(self) -> int | None:
        """The most tokens that the model reads; None without a limit."""
        return self.positions if self.positions is not None else self.context


def lookups(model: Any, given: Collection[TensorSpec] = _TEXT) -> Lookups:
    """Runs a model on a few tokens, until both tables were used.

    Args:
        model: a ``PreTrainedModel``, adapted or not. Nothing of it is changed.
        given: the inputs of the bundle's graph that reads the text.
    """
    base = getattr(model, "get_base_model", lambda: model)()
    if "input_ids" not in inspect.signature(base.forward).parameters or all(spec.name != "input_ids" for spec in given):
        return Lookups()
    config = model.config.get_text_config()
    tokens = _tokens(config)
    inputs = example(base, given, torch.tensor(tokens))
    watch = _Watch(tokens)
    watch.found.context = context(config)
    try:
        with torch.no_grad(), watch:
            model(**inputs)
    except Exception:
        # both tables were seen; or the model needs more than tokens, such as the rows' tasks, and what was seen so far
        # counts
        return watch.found
    return watch.found


def answer_length(model: Any) -> int | None:
    """How many tokens an encoder-decoder's answer may have, by the table of its decoder's positions; None: no limit.

    Args:
        model: a ``PreTrainedModel``, adapted or not. Nothing of it is changed.
    """
    tokens = _tokens(model.config.get_text_config(decoder=True))
    weight = next(model.parameters())
    states = torch.zeros((1, len(tokens), model.config.hidden_size), dtype=weight.dtype, device=weight.device)
    watch = _Watch(tokens)
    with contextlib.suppress(Exception), torch.no_grad(), watch:  # as above
        model(encoder_outputs=MoEModelOutput(states), decoder_input_ids=torch.tensor([tokens], device=weight.device))
    return watch.found.positions


class _Enough(Exception):
    """Both tables are seen."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every look-up in a table."""

    def __init__(self, tokens: list[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tokens = tokens
        self.found = Lookups()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.embedding.default:
            self._see(len(args[0]), args[1].flatten()[: len(self._tokens)].tolist())
        elif (
            func is torch.ops.aten.index.Tensor and args[0].ndim == 2 and len(args[1]) == 1 and self._is_table(args[0])
        ):
            self._see(len(args[0]), args[1][0].flatten()[: len(self._tokens)].tolist())
        return func(*args, **(kwargs or {}))

    def _is_table(self, rows: torch.Tensor) -> bool:
        """Whether rows may be a table: what the model knows of each token is none, of which an expert picks some."""
        return len(rows) > len(self._tokens)

    def _see(self, rows: int, index: list[int]) -> None:
        if index == self._tokens:
            self.found.words = rows
        elif index == list(range(index[0], index[0] + len(self._tokens))) and self.found.positions is None:
            self.found.positions = rows - index[0]
        if self.found.words is not None and self.found.positions is not None:
            raise _Enough


def _tokens(config: Any) -> list[int]:
    """Ordinary tokens, the largest first, so that they are no consecutive numbers; some models skip padding."""
    kinds = ("pad", "bos", "eos", "unk", "mask", "sep", "cls")
    special = {token for kind in kinds for token in listed(getattr(config, f"{kind}_token_id", None))}
    ordinary = [i for i in range(min(int(config.vocab_size), 4 * _TOKENS)) if i not in special]
    return ordinary[-_TOKENS:][::-1]
