"""What `eptx convert` folds into a plain LoRA: methods without a router, whose update is one product of two factors.

The folder that it writes is one that PEFT reads as LoRA, so that everything holds for it that holds for LoRA.
"""

from __future__ import annotations

from eptx.exporter.methods.lora.convert.adamix import ADAMIX
from eptx.exporter.methods.lora.convert.moslora import MOSLORA
from eptx.exporter.methods.lora.convert.multilora import MULTILORA
from eptx.exporter.methods.released import Conversion

CONVERSIONS: tuple[Conversion, ...] = (ADAMIX, MOSLORA, MULTILORA)
