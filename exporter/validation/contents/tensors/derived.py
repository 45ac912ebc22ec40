"""Tensors that a forward makes of parameters alone, the same in every run: an exporter may store those instead.

Gemma's norms multiply by 1 + weight, DeBERTa's relative positions are normed. What is made of them is observed as
the model computes it, so no list of architectures is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class Derived(TorchFunctionMode):
    """Watches a forward.

    Args:
        sources: the model's parameters and float buffers.

    Attributes:
        made: what was made, with the ids of the sources that it was made of; views of one source are not among them.
    """

    def __init__(self, sources: Iterable[Tensor]) -> None:
        super().__init__()
        self.made: list[tuple[Tensor, frozenset[int]]] = []
        self._sources: dict[int, frozenset[int]] = {}
        self._kept: list[Tensor] = list(sources)  # an id is its tensor's only while that lives
        self._storages = {source.untyped_storage().data_ptr() for source in self._kept}
        for source in self._kept:
            self._sources[id(source)] = frozenset({id(source)})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs a function and remembers what it makes of sources alone."""
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = [self._sources.get(id(tensor)) for tensor in given]
        out = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not given or any(sources is None for sources in known):
            for result in results:  # written into
                self._sources.pop(id(result), None)
            return out
        union = frozenset[int]().union(*(sources for sources in known if sources is not None))
        for result in results:
            if id(result) in self._sources or not result.is_floating_point():
                continue
            self._sources[id(result)] = union
            self._kept.append(result)
            if result.untyped_storage().data_ptr() not in self._storages:
                self.made.append((result.detach(), union))
        return out


def used_by(outputs: Iterable[Tensor]) -> set[int]:
    """Ids of the leaves that these outputs depend on, whatever numbers the leaves hold."""
    found: set[int] = set()
    seen: set[Any] = set()
    waiting = [output.grad_fn for output in outputs if output.grad_fn is not None]
    while waiting:
        node: Any = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, torch.Tensor):
            found.add(id(leaf))
        waiting += [step for step, _ in node.next_functions if step is not None]
    return found
