"""Numbers of a report as strict JSON holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def json_types(value: Any) -> Any:
    """A value as JSON types, all through; what is infinite or not a number becomes None, which JSON writes as null.

    Args:
        value: of dicts, sequences, numbers of Python or numpy, strings, None.
    """
    if isinstance(value, Mapping):
        return {str(key): json_types(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return json_types(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [json_types(item) for item in value]
    return value
