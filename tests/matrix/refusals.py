"""The cells that are refused, with the very message."""

from __future__ import annotations

_CONVERT = (
    "save the adapter converted to a plain LoRA (PEFT's save_pretrained with path_initial_model_for_weight_conversion)"
)
_STARTS = {
    "LoRA, from randomized PiSSA": ("pissa_niter_4", "a randomized SVD changed the base"),
    "LoRA, from LoRA-GA": ("lora_ga", "gradients that it does not hold changed the base"),
}
#: Mode -> the adapter that is read first.
_FIRST = {"static": "task1", "conditioned": "task0"}

#: (row or setting, mode) -> the message. A setting's cell is the same on every row that it is tried on.
REFUSALS: dict[tuple[str, str], str] = {
    (name, mode): f"{first}/adapter_config.json: init_lora_weights={start!r} is not supported: {reason}: {_CONVERT}"
    for name, (start, reason) in _STARTS.items()
    for mode, first in _FIRST.items()
}
