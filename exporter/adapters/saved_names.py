"""Which of the tensors that PEFT saved beside an adapter's own are of the class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: With ``bias="all"`` PEFT saves every bias by its name inside of its own layers: of a module that is saved whole that
#: is the same once more, and the base's.
_AGAIN, _OF_BASE = ".modules_to_save.bias", ".original_module.bias"


def in_class(saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Saved tensors without those that are there once more, or are the base's."""
    again = {name for name in saved if name.endswith(_AGAIN) and f"{name.removesuffix(_AGAIN)}.bias" in saved}
    return {name: array for name, array in saved.items() if name not in again and not name.endswith(_OF_BASE)}
