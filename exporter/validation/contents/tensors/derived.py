"""Tensors that a forward computes from parameters alone: they are the same in every run, and a graph may hold them.

Gemma's norms multiply by 1 + weight; DeBERTa norms its relative positions. Such tensors are recorded while the model
runs, so no list of architectures is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class Derived(TorchFunctionMode):
    """Records a forward.

    Args:
        sources: the model's parameters and float buffers.

    Attributes:
        made: each computed tensor with the ids of its sources; views of one source are left out.
    """

    def __init__(self, sources: Iterable[Tensor]) -> None:
        super().__init__()
        self.made: list[tuple[Tensor, frozenset[int]]] = []
        self._sources: dict[int, frozenset[int]] = {}
        self._kept: list[Tensor] = list(sources)  # a tensor's id is its own only while it lives
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
        """Runs a function and records what it computes from sources alone."""
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = [self._sources.get(id(tensor)) for tensor in given]
        out = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not given or any(sources is None for sources in known):
            for result in results:  # it was written into
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
    """Ids of the leaves that these outputs depend on, independent of their numbers."""
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
