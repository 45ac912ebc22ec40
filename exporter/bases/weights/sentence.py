"""What a sentence-transformers folder puts behind its transformer: pooling, linear layers, normalization.

``modules.json`` lists the parts in order, and each has a folder. Releases before 5 call their classes
``sentence_transformers.models.Pooling``, later ones by the places where they are now; the last word is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eptx._one_line import shown
from eptx.bundle import Embedding, EmbeddingLayer
from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter.adapters.tensor_files.safetensors import read_tensors
from eptx.files.safe_files import is_contained_name
from eptx.files.strict_json import read_json, read_json_object
from eptx.manifest.names import POOLINGS

__all__ = ["Linear", "Sentence", "read_sentence"]

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
_LIBRARY = "sentence_transformers."
_WEIGHTS, _PICKLE = "model.safetensors", "pytorch_model.bin"
#: The settings of releases before 5.6, one for each mode, in the order of their vectors.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
#: torch's classes, made without arguments.
_ACTIVATIONS = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}
_READ = "sentence_embedding"


@dataclass(frozen=True)
class Linear:
    """A linear layer behind the pooling.

    Attributes:
        weight: float32 [out, in]. bias: float32 [out], or None.
        activation: one of `ACTIVATIONS`.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    activation: str


@dataclass(frozen=True)
class Sentence:
    """What stands behind the transformer.

    Attributes:
        width: of the vectors that are pooled.
        pooling: the modes, of `POOLINGS`, whose vectors stand one after the other.
        layers: linear layers, in order.
        normalize: whether the result is divided by its length.
        prompt: what is put before every text where nothing else is asked for, "" for nothing.
    """

    width: int
    pooling: tuple[str, ...]
    layers: tuple[Linear, ...]
    normalize: bool
    prompt: str

    @property
    def size(self) -> int:
        """How many numbers an embedding has."""
        return len(self.layers[-1].weight) if self.layers else self.width * len(self.pooling)

    @property
    def embedding(self) -> Embedding:
        """What a bundle says of it."""
        layers = tuple(EmbeddingLayer(len(layer.weight), layer.activation) for layer in self.layers)
        return Embedding(self.pooling, layers, self.normalize)


def read_sentence(folder: Path, *, allow_pickle: bool = False) -> Sentence | None:
    """What a folder says; None where it is none of sentence-transformers.

    Args:
        folder: a transformers folder.
        allow_pickle: whether a layer's ``pytorch_model.bin`` is read, by torch's ``weights_only`` loader.

    Raises:
        NotSupportedError: it has a part that eptx does not know, or parts in another order; the message names it.
        BaseModelError: a file is missing or damaged.
    """
    if not (folder / MODULES).exists():
        return None
    parts = _parts(folder)
    kinds = [kind for kind, _ in parts]
    if kinds[:2] != ["Transformer", "Pooling"] or "Pooling" in kinds[2:] or "Normalize" in kinds[2:-1]:
        raise NotSupportedError(
            f"{MODULES} has {', '.join(kinds) or 'nothing'}; eptx knows Transformer, Pooling, Dense, Normalize, so"
        )
    width, pooling, with_prompt = _pooling(parts[1][1])
    size, layers = width * len(pooling), []
    for path in (path for kind, path in parts if kind == "Dense"):
        layers.append(_dense(path, size, allow_pickle))
        size = len(layers[-1].weight)
    prompts, prompt = _prompts(folder)
    if not with_prompt and prompts:
        raise NotSupportedError(
            f"{parts[1][1].name} leaves the prompts of {SETTINGS} out of its pooling (include_prompt false)"
        )
    return Sentence(width, pooling, tuple(layers), kinds[-1] == "Normalize", prompt)


def _parts(folder: Path) -> list[tuple[str, Path]]:
    """The kind and the folder of each part.

    Raises:
        NotSupportedError: one is of a class that eptx does not know.
        BaseModelError: the list is damaged.
    """
    listed = read_json(folder / MODULES, error=BaseModelError)
    if not isinstance(listed, list) or not all(isinstance(part, dict) for part in listed):
        raise BaseModelError(f"{MODULES}: must be a list of modules: download it again")
    found = []
    for part in listed:
        name, path = part.get("type"), part.get("path")
        if not isinstance(name, str) or not isinstance(path, str) or not (path == "" or is_contained_name(path)):
            raise BaseModelError(f"{MODULES}: a module has no type, or no path inside the folder: download it again")
        kind = name.rpartition(".")[2]
        if not name.startswith(_LIBRARY) or kind not in ("Transformer", "Pooling", "Dense", "Normalize"):
            raise NotSupportedError(f"{MODULES} has a module {shown(name)}, which eptx does not know")
        if kind == "Transformer" and path:
            raise NotSupportedError(f"{MODULES} has its transformer in {shown(path)}, and not beside it")
        settings = _settings(folder / path) if kind == "Normalize" else {}
        if (settings.get("module_input_name") or _READ, settings.get("module_output_name") or _READ) != (_READ, _READ):
            raise NotSupportedError(f"{path} normalizes something else than the {_READ}")
        found.append((kind, folder / path))
    return found


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return read_json_object(path, error=BaseModelError) if path.exists() else {}


def _pooling(folder: Path) -> tuple[int, tuple[str, ...], bool]:
    """The width, the modes, and whether prompts are pooled too."""
    settings = read_json_object(folder / "config.json", error=BaseModelError)
    said = settings.get("pooling_mode")
    if said is None:
        said = [mode for flag, mode in _FLAGS.items() if settings.get(flag) is True] or "mean"
    modes = [said] if isinstance(said, str) else said
    if not isinstance(modes, list) or not modes or not all(isinstance(mode, str) for mode in modes):
        raise BaseModelError(f"{folder.name}/config.json: pooling_mode must be a mode, or a list of them")
    unknown = next((mode for mode in modes if mode not in POOLINGS), None)
    if unknown is not None:
        raise NotSupportedError(f"{folder.name} pools by {shown(unknown)}; eptx knows {', '.join(POOLINGS)}")
    width = settings.get("embedding_dimension", settings.get("word_embedding_dimension"))
    if type(width) is not int or width < 1:
        raise BaseModelError(f"{folder.name}/config.json: embedding_dimension must be a number")
    return width, tuple(modes), settings.get("include_prompt", True) is not False


def _dense(folder: Path, size: int, allow_pickle: bool) -> Linear:
    settings = read_json_object(folder / "config.json", error=BaseModelError)
    name = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = _ACTIVATIONS.get(name.rpartition(".")[2]) if isinstance(name, str) else None
    if activation is None or not name.startswith("torch.nn."):
        raise NotSupportedError(f"{folder.name} has the activation {shown(name)}; eptx knows {', '.join(_ACTIVATIONS)}")
    if settings.get("use_residual"):
        raise NotSupportedError(f"{folder.name} adds its input to its output (use_residual)")
    read = settings.get("module_input_name") or _READ
    if {read, settings.get("module_output_name") or read} != {_READ}:
        raise NotSupportedError(f"{folder.name} reads or gives something else than the {_READ}")
    tensors = _tensors(folder, allow_pickle)
    weight, bias = tensors.pop("linear.weight", None), tensors.pop("linear.bias", None)
    if tensors or weight is None or weight.ndim != 2 or weight.shape[1] != size:
        raise BaseModelError(f"{folder.name}: its weights are no linear layer of {size} numbers: download it again")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise BaseModelError(f"{folder.name}: linear.bias does not fit linear.weight: download it again")
    return Linear(weight, bias, activation)


def _tensors(folder: Path, allow_pickle: bool) -> dict[str, np.ndarray]:
    if (folder / _WEIGHTS).exists():
        return read_tensors(folder / _WEIGHTS, error=BaseModelError)
    if not (folder / _PICKLE).exists():
        raise BaseModelError(f"{folder.name}: {_WEIGHTS} is missing: download it too")
    if not allow_pickle:
        raise NotSupportedError(f"{folder.name} holds a pickle, {_PICKLE}, which is read with --allow-pickle only")
    from eptx.exporter.adapters.tensor_files.pickled import read_pickle  # loads PyTorch

    return read_pickle(folder / _PICKLE)


def _prompts(folder: Path) -> tuple[list[str], str]:
    """The prompts that are not empty, and the one that every text gets."""
    path = folder / SETTINGS
    settings = read_json_object(path, error=BaseModelError) if path.exists() else {}
    named = settings.get("prompts")
    prompts = {name: text for name, text in named.items() if text} if isinstance(named, dict) else {}
    default = prompts.get(str(settings.get("default_prompt_name")), "")
    return [str(text) for text in prompts.values()], str(default)
