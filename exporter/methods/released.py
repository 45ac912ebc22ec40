"""What a released code saves that PEFT would save otherwise, and how it is rewritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Conversion:
    """How a method's released files become a folder that eptx reads.

    Attributes:
        matches: whether files are of it, by their configuration (empty where there is none) and names of tensors.
        convert: from the tensors, by their names, and the settings to the tensors and the configuration to save. Names
            are without PEFT's prefix.
        settings: what the files do not hold and the result must say: key -> what it is, for those who are asked.
    """

    matches: Callable[[Mapping[str, Any], Sequence[str]], bool]
    convert: Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], tuple[dict[str, np.ndarray], dict[str, Any]]]
    settings: Mapping[str, str] = field(default_factory=dict)
