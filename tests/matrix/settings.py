"""PEFT's settings, one after the other; each is a column of adapters on a few rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import peft

from tests.matrix import settings_lora
from tests.matrix.made import linear_names
from tests.matrix.row import Row
from tests.matrix.settings_other import OTHERS


@dataclass(frozen=True)
class Setting:
    """What adapters have in common.

    Attributes:
        name: as docs/supported.md shows it.
        config: PEFT's configuration class.
        values: settings of it. Without ``target_modules`` adapters adapt all linear layers, the first half of their
            names, the second half.
        per_adapter: settings of adapter number i instead, the last for all after it.
        ranked: whether the rank is ``r``, and differs from adapter to adapter.
    """

    name: str
    config: str = "LoraConfig"
    values: Mapping[str, Any] = field(default_factory=dict)
    per_adapter: tuple[Mapping[str, Any], ...] = ()
    ranked: bool = True

    def __call__(self, row: Row, model: Any, index: int) -> Any:
        """The configuration of adapter number `index`."""
        names = linear_names(row, model)
        halves = [names, names[: (len(names) + 1) // 2], names[len(names) // 2 :]]
        values: dict[str, Any] = {"target_modules": halves[index % 3]}
        if self.ranked:
            values |= {"r": (4, 2, 8)[index % 3]}
        if self.config == "LoraConfig":
            values |= {"lora_alpha": (8, 3, 5)[index % 3]}
        own = self.per_adapter[min(index, len(self.per_adapter) - 1)] if self.per_adapter else {}
        return getattr(peft, self.config)(**{**values, **row.peft, **self.values, **own})


PLAIN = Setting("LoRA")
#: The settings of the matrix, which part `lora` and part `peft` extend.
SETTINGS: tuple[Setting, ...] = (
    PLAIN,
    *(Setting(name, values=values) for name, values in settings_lora.SAME),
    *(Setting(name, per_adapter=own) for name, own in settings_lora.OWN),
    *(Setting(name, config, values, ranked=False) for name, config, values in OTHERS),
)
