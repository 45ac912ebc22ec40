"""From what the released MOELoRA saves, a ``.bin`` with ``peft_type`` MMOELORAS, to a folder that eptx reads.

Every layer gets its experts in one tensor, and the gate and the tasks' embeddings, of which the released file has one
pair for all layers. The gates that it holds inside of layers are never used there, and are left out. So is the
embedding of id 0: it fills up lists of ids, and no task has it. Task i of eptx is id i + 1 there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError
from eptx.exporter.adapters.checkpoint import refuse_options, refuse_unknown
from eptx.exporter.methods.released import Conversion, check_shape, found, positive, refuse_others

_EMBEDDINGS, _GATE = "lora_task_embedding.weight", "lora_gate.GateL.weight"
#: An expert's factor. It is saved twice, with ``mlp`` and without.
_EXPERT = re.compile(r"^(.+)\.lora_[AB]\.lora([AB])\.(\d+)\.(?:mlp\.)?weight$")
#: What the tensors say anyway, or only training asks for.
_KNOWN = (
    *("r", "lora_alpha", "lora_dropout", "target_modules", "fan_in_fan_out", "init_lora_weights", "merge_weights"),
    *("bias", "task_num", "task_embedding_dim", "expert_num"),
)


def _matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    return config.get("peft_type") == "MMOELORAS" or any(name.endswith(_GATE) for name in names)


def _convert(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    refuse_options(config, {"bias": ("none", None)})
    refuse_unknown(config, _KNOWN)
    alpha = positive(config, "lora_alpha")
    if _GATE not in tensors and any(name.endswith(f".{_GATE}") for name in tensors):
        raise AdapterError(
            f"{_GATE} is missing, and layers have gates of their own, which the released code never uses: save the "
            "adapter again with the code that trained it"
        )
    embeddings, gate = found(tensors, _EMBEDDINGS, 2), found(tensors, _GATE, 2)
    width, experts = embeddings.shape[1], len(gate)
    check_shape(_GATE, gate, (config.get("expert_num", experts), width), "with the configuration")
    check_shape(_EMBEDDINGS, embeddings, (config.get("task_num", len(embeddings) - 1) + 1, width), "with task_num")
    if len(embeddings) < 2:
        raise AdapterError(f"{_EMBEDDINGS} has no task: its only row fills up lists of ids")
    shared = {"lora_task_embedding": embeddings[1:], "lora_gate": gate}
    layers = {match[1]: None for name in tensors if (match := _EXPERT.match(name))}
    written: dict[str, np.ndarray] = {}
    for layer in layers:
        factors = {which: _factor(layer, which, tensors, experts) for which in "AB"}
        rank = experts * factors["A"].shape[1]
        if config.get("r", rank) != rank:
            raise AdapterError(f"{layer} has rank {rank} in all its experts; the configuration says {config['r']}")
        written |= {f"{layer}.lora_{which}": factor for which, factor in factors.items()}
        written |= {f"{layer}.{name}": array for name, array in shared.items()}
    own = {name: array for name, array in tensors.items() if "lora_" in name and not _EXPERT.match(name)}
    refuse_others(own, (_EMBEDDINGS, _GATE))
    written |= {name: array for name, array in tensors.items() if "lora_" not in name}
    task = {"task_type": "CAUSAL_LM"} if config.get("task_type") == "CAUSAL_LMS" else {}
    return written, {"peft_type": "MOELORA", "lora_alpha": alpha, **task}


def _factor(layer: str, which: str, tensors: Mapping[str, np.ndarray], experts: int) -> np.ndarray:
    """The factor of all experts of a layer, [E, ...]."""
    numbers = {int(match[3]) for name in tensors if (match := _EXPERT.match(name)) and match[1] == layer}
    begin = f"{layer}.lora_{which}.lora{which}"
    if max(numbers) >= experts:
        raise AdapterError(f"{begin} has an expert {max(numbers)}; {_GATE} has {experts} experts: they do not fit")
    each = [_expert(f"{begin}.{number}", tensors) for number in range(experts)]
    for number, array in enumerate(each):
        check_shape(f"{begin}.{number}.mlp.weight", array, each[0].shape, "as of expert 0")
    return np.stack(each)


def _expert(begin: str, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    name, again = f"{begin}.mlp.weight", f"{begin}.weight"
    array = found(tensors, name if name in tensors or again not in tensors else again, 2)
    if again in tensors and not np.array_equal(tensors[again], array):
        raise AdapterError(f"{name} and {again} differ; the released code saves one tensor under both names")
    return array


CONVERSION = Conversion(
    "MOELoRA", _matches, _convert, {"lora_alpha": "the scale of the update is lora_alpha / r, r that of all experts"}
)
