"""The names of tensors that PEFT saved beside an adapter's own, as the class has them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: With ``bias="all"`` PEFT saves every bias by the name that it has inside of PEFT's own layers; of a module that is
#: saved whole that is twice the same, and the base's.
_INSIDE, _AGAIN, _OF_BASE = ".base_layer.bias", ".modules_to_save.bias", ".original_module.bias"


def in_class(saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Saved tensors by their names in the class."""
    found = {}
    for name, array in saved.items():
        if name.endswith(_OF_BASE) or (name.endswith(_AGAIN) and f"{name.removesuffix(_AGAIN)}.bias" in saved):
            continue
        found[f"{name.removesuffix(_INSIDE)}.bias" if name.endswith(_INSIDE) else name] = array
    return found
