"""AdaMix on LoRA (https://arxiv.org/abs/2205.12410): several A and several B, which are averaged once trained.

    w  = softmax(lora_expert_score_weight)                                        [E]
    A' = sum over e of w_e A_e,   B' = sum over e of w_e B_e;   y += (alpha / r) B' A' x

The weights are averaged, not the products. A factor that all experts share is there once. GPT-2's ``c_attn`` is three
layers in one, of which queries and values are adapted: each has r rows of A and its own rows of B. (microsoft/AdaMix,
NLG/loralib/layers.py, NLG/src/model.py)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.methods.lora.convert.plain import ALPHA, Factors, plain
from eptx.exporter.methods.mixture import softmax
from eptx.exporter.methods.released import Conversion, check_shape, found, positive, refuse_others

_SCORES = ".lora_expert_score_weight"
_EXPERT = re.compile(r"^(.+)\.experts_lora_([AB])\.(\d+)$")
#: Which of the layers in one are adapted, by how many of them are: the released code has no others.
_ENABLED = {1: (True,), 2: (True, False, True)}


def _matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    return any(name.endswith(_SCORES) or ".deepspeed_experts." in name for name in names)


def _convert(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    bottleneck = next((name for name in tensors if ".deepspeed_experts." in name), None)
    if bottleneck is not None:
        raise NotSupportedError(
            f"{bottleneck}: is of an adapter with an activation in it, which no LoRA computes: AdaMix is converted "
            "where it was trained on LoRA"
        )
    own = {name: array for name, array in tensors.items() if "lora_" in name}  # the last file has the base's too
    refuse_others({name: array for name, array in own.items() if not _EXPERT.match(name)}, (_SCORES,))
    layers = [name.removesuffix(_SCORES) for name in tensors if name.endswith(_SCORES)]
    groups, factors = set(), {}
    for layer in layers:
        count, factors[layer] = _layer(layer, tensors)
        groups.add(count)
    if len(groups) != 1:
        raise AdapterError(f"layers disagree on how many layers in one they adapt: {sorted(groups)}")
    return plain(factors, positive(config, "lora_alpha") * groups.pop())


def _layer(layer: str, tensors: Mapping[str, np.ndarray]) -> tuple[int, Factors]:
    """How many layers in one are adapted, and the factors: the ranks of each stand one after the other."""
    weights = softmax(found(tensors, layer + _SCORES, 1))
    down, up = (_mean(layer, which, tensors, weights) for which in "AB")
    rank = up.shape[1]
    count = len(down) // rank
    enabled = _ENABLED.get(count)
    if enabled is None or len(down) != count * rank or len(up) % count:
        said = f"{layer}: experts_lora_A has shape {list(down.shape)}, experts_lora_B {list(up.shape)}"
        raise NotSupportedError(f"{said}: no layer of the released code has these")
    height = len(up) // count
    whole = np.zeros((len(enabled) * height, len(down)))
    places = [place for place, on in enumerate(enabled) if on]
    for group, place in enumerate(places):
        block = up[group * height : (group + 1) * height]
        whole[place * height : (place + 1) * height, group * rank : (group + 1) * rank] = block
    return count, (down, whole)


def _mean(layer: str, which: str, tensors: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The average of a factor; one that is shared is there once."""
    matches = [match for name in tensors if (match := _EXPERT.match(name))]
    count = sum(match[1] == layer and match[2] == which for match in matches)
    names = [f"{layer}.experts_lora_{which}.{expert}" for expert in range(1 if count == 1 else len(weights))]
    experts = [found(tensors, name, 2).astype(np.float64) for name in names]
    for name, expert in zip(names, experts, strict=True):
        check_shape(name, expert, experts[0].shape, f"as {names[0]}")
    if count > len(names):
        extra = f"{layer} has {count} of experts_lora_{which}, and {len(weights)} scores"
        raise AdapterError(f"{extra}: save the adapter again with the code that trained it")
    return experts[0] if len(experts) == 1 else np.tensordot(weights, np.stack(experts), 1)


ADAMIX = Conversion("AdaMix", _matches, _convert, ALPHA)
