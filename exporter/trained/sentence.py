"""What sentence-transformers puts behind the base, in PyTorch: the embedding of each row.

It is written from that library's definition, and shares no code with the exporter, which it checks: it reads
``modules.json`` by itself, finds each row's tokens by the mask, and pools row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from eptx._one_line import one_line
from eptx.errors import BaseModelError
from eptx.files.safe_files import is_contained_name
from eptx.files.strict_json import read_json, read_json_object

__all__ = ["SentenceHead", "load_sentence"]

_LIBRARY, _READ = "sentence_transformers.", "sentence_embedding"
#: Each vector of a row [tokens, width] -> one vector; only tokens that count are in it.
_POOL: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda tokens: tokens[0],
    "max": lambda tokens: tokens.amax(0),
    "mean": lambda tokens: tokens.mean(0),
    "mean_sqrt_len_tokens": lambda tokens: tokens.sum(0) / len(tokens) ** 0.5,
    "weightedmean": lambda tokens: _weighted(tokens),
    "lasttoken": lambda tokens: tokens[-1],
}
#: Before one setting had them all, each mode had a setting of its own; their vectors stand in this order.
_OLD = (
    ("cls_token", "cls"),
    ("max_tokens", "max"),
    ("mean_tokens", "mean"),
    ("mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("weightedmean_tokens", "weightedmean"),
    ("lasttoken", "lasttoken"),
)


class SentenceHead(nn.Module):
    """Pooling, linear layers, normalization.

    Attributes:
        modes: of the pooling. activations: of the layers, as torch calls them. normalize: whether the end has length 1.
    """

    def __init__(self, modes: tuple[str, ...], layers: list[nn.Linear], activations: list[str], normalize: bool):
        super().__init__()
        self.modes, self.activations, self.normalize = modes, activations, normalize
        self.layers = nn.ModuleList(layers)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Embeddings [batch, size] of hidden states [batch, length, width]."""
        rows = list(hidden) if mask is None else [row[kept.bool()] for row, kept in zip(hidden, mask, strict=True)]
        vectors = torch.stack([torch.cat([_POOL[mode](row) for mode in self.modes]) for row in rows])
        for layer, activation in zip(self.layers, self.activations, strict=True):
            vectors = getattr(nn, activation)()(layer(vectors))
        return nn.functional.normalize(vectors, dim=1) if self.normalize else vectors


def _weighted(tokens: Tensor) -> Tensor:
    weights = torch.arange(1, len(tokens) + 1, dtype=tokens.dtype)
    return weights @ tokens / weights.sum()


def load_sentence(folder: Path, *, allow_pickle: bool = False) -> SentenceHead | None:
    """What stands behind the base; None where nothing does, or something that no bundle computes.

    Args:
        folder: the base's.
        allow_pickle: whether torch's ``weights_only`` loader may read a layer's weights, where there is nothing else.

    Raises:
        BaseModelError: a file is missing or damaged.
    """
    if not (folder / "modules.json").is_file():
        return None
    listed = read_json(folder / "modules.json", error=BaseModelError)
    try:
        kinds = [each["type"].split(".")[-1] for each in listed]
        foreign = any(not each["type"].startswith(_LIBRARY) for each in listed) or listed[0]["path"] != ""
        if foreign or kinds[:2] != ["Transformer", "Pooling"]:
            return None
        behind = kinds[2:]
        normalize = behind[-1:] == ["Normalize"]
        if any(kind != "Dense" for kind in behind[: -1 if normalize else None]):
            return None
        if any(not is_contained_name(each["path"]) for each in listed[1:]):
            raise BaseModelError("modules.json: names a folder that is not inside its own")
        folders = [folder / each["path"] for each in listed]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise BaseModelError(f"modules.json: cannot be read: {one_line(error)}") from None
    pooling = read_json_object(folders[1] / "config.json", error=BaseModelError)
    modes = _modes(pooling)
    dense = folders[2 : len(folders) - normalize]
    settings = [read_json_object(path / "config.json", error=BaseModelError) for path in dense]
    left_out = pooling.get("include_prompt") is False and _prompted(folder)
    last = folders[-1] / "config.json"
    moved = [*settings, read_json_object(last, error=BaseModelError)] if normalize and last.is_file() else settings
    if left_out or not {*modes} <= {*_POOL} or any(map(_elsewhere, moved)):
        return None
    activations = [str(each.get("activation_function") or "torch.nn.Tanh") for each in settings]
    names = [name.split(".")[-1] for name in activations]
    known = {"Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU"}
    if not {*names} <= known or any(not name.startswith("torch.nn.") for name in activations):
        return None
    tensors = [_tensors(path, allow_pickle) for path in dense]
    if None in tensors:
        return None
    return SentenceHead(modes, [_linear(own) for own in tensors if own is not None], names, normalize)


def _modes(settings: dict[str, Any]) -> tuple[str, ...]:
    said = settings.get("pooling_mode")
    if said is not None:
        return (said,) if isinstance(said, str) else tuple(said)
    return tuple(mode for name, mode in _OLD if settings.get(f"pooling_mode_{name}")) or ("mean",)


def _elsewhere(settings: dict[str, Any]) -> bool:
    """Whether a part reads or gives something else than the embedding, or adds what it reads."""
    names = (settings.get("module_input_name") or _READ, settings.get("module_output_name") or _READ)
    return names != (_READ, _READ) or bool(settings.get("use_residual"))


def _prompted(folder: Path) -> bool:
    path = folder / "config_sentence_transformers.json"
    prompts = read_json_object(path, error=BaseModelError).get("prompts") if path.is_file() else None
    return isinstance(prompts, dict) and any(prompts.values())


def _tensors(folder: Path, allow_pickle: bool) -> dict[str, Tensor] | None:
    """A layer's weights; None where they are a pickle that must not be read."""
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if not safe.is_file() and pickled.is_file() and not allow_pickle:
        return None
    try:
        if safe.is_file():
            return load_file(safe)
        found: dict[str, Tensor] = torch.load(pickled, map_location="cpu", weights_only=True)  # noqa: TID251
        return found
    except Exception as error:  # the libraries have no common class
        raise BaseModelError(f"{folder.name}: its weights cannot be read: {one_line(error)}") from None


def _linear(tensors: dict[str, Tensor]) -> nn.Linear:
    weight, bias = tensors["linear.weight"], tensors.get("linear.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer
