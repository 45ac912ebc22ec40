"""LoRA of what is no linear layer: embeddings, convolutions and parameters, as changes of the base's tensors.

    embedding    E' = E + scale * (B A)^T            A [r, tokens], B [width, r]; DoRA's gain is per column
    convolution  K' = K + scale * B A, flattened     A [r, in, *kernel], B [out, r, 1, ..]; DoRA's gain is per output
    parameter    see `parameters`

(PEFT 0.21, tuners/lora/layer.py: Embedding, _ConvNd; dora.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.adapters.changes import LowRank, TensorChange, Whole
from eptx.exporter.adapters.checkpoint import AGAIN, UNKNOWN, WEIGHTS, Checkpoint, flag, take
from eptx.exporter.methods.lora.parameters import Targets, factors_of
from eptx.exporter.methods.patterns import scale_of

__all__ = ["take_tensors"]

_A, _EMBEDDING = ".lora_A.weight", ".lora_embedding_A"


def take_tensors(checkpoint: Checkpoint, targets: Targets) -> tuple[dict[str, TensorChange], dict[str, np.ndarray]]:
    """What an adapter changes of tensors, and the factors of its linear layers.

    Args:
        checkpoint: its files.
        targets: the parameters that ``target_parameters`` names; the factors of linear layers' weights stay.

    Raises:
        AdapterError: factors are missing, or do not fit each other.
    """
    rest = dict(checkpoint.tensors)
    changes = checkpoint.whole
    for module, parameters in targets.items():
        for index, parameter in enumerate(parameters):
            if parameter.linear:
                continue
            own = _taken(rest, factors_of(module, index, len(parameters)))
            changes[parameter.key] = parameter.update(own, checkpoint.config)
            _refuse_rest(module, own)
    for name in list(rest):
        module, is_embedding = name.removesuffix(_EMBEDDING), name.endswith(_EMBEDDING)
        is_convolution = name.endswith(_A) and rest[name].ndim > 2
        if not is_embedding and not is_convolution:
            continue
        if is_convolution:
            module = name.removesuffix(_A)
        own = _taken(rest, module)
        of = changes.get(f"{module}.weight")
        under = of.array if isinstance(of, Whole) else None
        make = _embedding if is_embedding else _convolution
        changes[f"{module}.weight"] = make(module, own, checkpoint.config, under)
        if "lora_B.bias" in own:
            changes[f"{module}.bias"] = _bias(module, own.pop("lora_B.bias"), checkpoint.config, changes)
        _refuse_rest(module, own)
    return changes, rest


def _taken(rest: dict[str, np.ndarray], module: str) -> dict[str, np.ndarray]:
    """A module's tensors, taken out."""
    part = f"{module}."
    return {key.removeprefix(part): rest.pop(key) for key in list(rest) if key.startswith(f"{part}lora_")}


def _embedding(
    module: str, own: dict[str, np.ndarray], config: Mapping[str, Any], of: np.ndarray | None
) -> TensorChange:
    a, b = take(own, module, "lora_embedding_A", 2), take(own, module, "lora_embedding_B", 2)
    _check(module, "lora_embedding", a.shape[0], b.shape[1])
    scale = scale_of(module, a.shape[0], config)
    return LowRank(scale * b.T.astype(np.float64), a.T.astype(np.float64), _magnitude(module, own, config), 1, of)


def _convolution(
    module: str, own: dict[str, np.ndarray], config: Mapping[str, Any], of: np.ndarray | None
) -> TensorChange:
    rank = own["lora_A.weight"].ndim
    a, b = take(own, module, "lora_A.weight", rank), take(own, module, "lora_B.weight", rank)
    if b.shape[1] < len(a) and len(a) % b.shape[1] == 0:
        raise NotSupportedError(
            f"{WEIGHTS}: {module}: lora_B has rank {b.shape[1]}, lora_A {len(a)}, as of a convolution in "
            f"{len(a) // b.shape[1]} groups, on which LoRA is not supported: leave it out of target_modules"
        )
    _check(module, "lora", a.shape[0], b.shape[1])
    scale, b = scale_of(module, a.shape[0], config), b.reshape(len(b), -1)
    flat = a.reshape(len(a), -1).astype(np.float64)
    return LowRank(flat, scale * b.astype(np.float64), _magnitude(module, own, config), 0, of)


def _bias(
    module: str, bias: np.ndarray, config: Mapping[str, Any], changes: Mapping[str, TensorChange]
) -> TensorChange:
    """What lora_B's bias adds to the convolution's, as factors of one column."""
    weight = changes[f"{module}.weight"]
    assert isinstance(weight, LowRank)
    if weight.magnitude is not None or f"{module}.bias" in changes:
        problem = f"{module}.lora_B.bias with DoRA or a bias of its own: PEFT trains no such thing"
        raise AdapterError(f"{WEIGHTS}: {problem}; {AGAIN}")
    scale = scale_of(module, len(weight.a), config)
    return LowRank(np.ones((1, 1)), scale * bias.astype(np.float64)[:, None])


def _magnitude(module: str, own: dict[str, np.ndarray], config: Mapping[str, Any]) -> np.ndarray | None:
    key = next((key for key in ("lora_magnitude_vector", "lora_magnitude_vector.weight") if key in own), None)
    if not flag(config, "use_dora"):
        return None
    if key is None:
        raise AdapterError(f"{WEIGHTS}: {module}.lora_magnitude_vector is missing: {AGAIN}")
    return own.pop(key).reshape(-1).astype(np.float64)


def _check(module: str, kind: str, rank: int, other: int) -> None:
    if rank != other:
        raise AdapterError(f"{WEIGHTS}: {module}: {kind}_B has rank {other}, {kind}_A {rank}: {AGAIN}")


def _refuse_rest(module: str, own: Mapping[str, np.ndarray]) -> None:
    if own:
        raise AdapterError(f"{WEIGHTS}: unexpected tensors of {module}: {', '.join(sorted(own))}; {UNKNOWN}")
