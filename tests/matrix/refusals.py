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
#: (row or setting, mode) -> the message. A setting's cell is the same on every row that it is tried on.
REFUSALS: dict[tuple[str, str], str] = {
    (name, mode): message for name, message in _OF_ROWS.items() for mode in ("static", "conditioned")
}
