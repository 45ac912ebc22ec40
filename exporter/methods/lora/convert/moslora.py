"""MoSLoRA (https://arxiv.org/abs/2406.11909): a matrix between A and B.

    y += (alpha / r) B M A x                         M is ``lora_AB`` [r, r]

So B' = B M is the B of a plain LoRA. Layers without a ``lora_AB`` are plain already. (wutaiqiang/MoSLoRA,
commonsense_reasoning/peft/src/peft/tuners/lora.py and visual_instruction_tuning/peft/tuners/lora/layer.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import NotSupportedError
from eptx.exporter.methods.lora.convert.plain import ALPHA, pair
from eptx.exporter.methods.released import Conversion, check_shape, found, positive

_BETWEEN = ".lora_AB.weight"
#: Settings that say where such matrices are, which the tensors say.
_OWN = ("lora_use_mixer", "lora_use_mixer_pattern")


def _matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    return any(".lora_AB." in name for name in names)


def _convert(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if config.get("use_dora"):
        raise NotSupportedError("use_dora=True is not supported: with it the released code leaves lora_AB out")
    positive(config, "lora_alpha")
    written = {name: array for name, array in tensors.items() if not name.endswith(_BETWEEN)}
    modules = [name.removesuffix(_BETWEEN) for name in tensors if name.endswith(_BETWEEN)]
    for module in modules:
        name = f"{module}.lora_B.weight"
        down, up = pair(tensors, f"{module}.lora_A.weight", name)
        between = found(tensors, module + _BETWEEN, 2).astype(np.float64)
        check_shape(module + _BETWEEN, between, (len(down), len(down)), "of this rank")
        written[name] = (up @ between).astype(np.float32)
    said = {key: value for key, value in config.items() if key not in _OWN}
    known = {"r": len(tensors[f"{modules[0]}.lora_A.weight"]), "target_modules": modules}
    return written, {**known, **said, "peft_type": "LORA"}


MOSLORA = Conversion("MoSLoRA", _matches, _convert, ALPHA)
