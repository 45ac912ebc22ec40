"""The cells that are refused, with the very message."""

from __future__ import annotations

#: Rows that no mode exports.
_OF_ROWS = {
    "ProphetNet": "transformers cannot export a ProphetNetForConditionalGeneration to ONNX "
    "(AssertionError: At the moment `use_cache` is only supported for `decoder_input_ids` of length 1)",
    "LongT5": "transformers cannot export a LongT5ForConditionalGeneration to ONNX "
    "(AssertionError: Cannot create Dim with inconsistent min=0, max=-262144)",
    "Speech2Text": "a Speech2TextForConditionalGeneration reads input_features and attention_mask of any length; "
    "of encoder-decoders, eptx exports those that read input_ids, or the features of sound of a fixed length, "
    "as Whisper does",
}
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
    **{(name, mode): message for name, message in _OF_ROWS.items() for mode in ("static", "conditioned")},
    **{
        (name, mode): f"{first}/adapter_config.json: init_lora_weights={start!r} is not supported: {reason}: {_CONVERT}"
        for name, (start, reason) in _STARTS.items()
        for mode, first in _FIRST.items()
    },
}
