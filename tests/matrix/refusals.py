"""The cells that are refused, with the very message."""

from __future__ import annotations

#: What messages about encoder-decoders end in.
_OTHERS = "; docs/supported.md lists the encoder-decoders that eptx exports"
#: Rows that no mode exports.
_OF_ROWS = {
    "Funnel": "transformers cannot export a FunnelModel to ONNX (UserError: Constraints violated (length)! For more "
    'information, run with TORCH_LOGS="+dynamic". - You marked length as dynamic but your code specialized it to be a '
    "constant (7). If you're using mark_dynamic, either remove it or use maybe_mark_dynamic. If you're using "
    "Dim.DYNAMIC, replace it with either Dim....); if you have it as ONNX, give that with --base-onnx",
    "ViTMAE": "a ViTMAEModel draws random numbers whenever it runs (RandomUniformLike), so that no two answers are the "
    "same: train and export a class that draws none (ViTModel has ViTMAE's weights)",
    "SigLIP 2": "a Siglip2VisionModel reads images as patches, as many as an image has (spatial_shapes), which eptx "
    "does not export: take a base of a fixed image size (of SigLIP 2, one whose config.json has model_type siglip)",
    "ProphetNet": "transformers cannot export a ProphetNetForConditionalGeneration to ONNX "
    "(AssertionError: At the moment `use_cache` is only supported for `decoder_input_ids` of length 1)" + _OTHERS,
    "LongT5": "transformers cannot export a LongT5ForConditionalGeneration to ONNX "
    "(AssertionError: Cannot create Dim with inconsistent min=0, max=-262144)" + _OTHERS,
    "Speech2Text": "a Speech2TextForConditionalGeneration reads input_features and attention_mask of any length; "
    "of encoder-decoders, eptx exports those that read input_ids, or the features of sound of a fixed length, "
    "as Whisper does: docs/supported.md lists them",
}
#: Rows that are refused in mode conditioned.
_OF_CONDITIONED = {
    "DeBERTa": "2 adapted modules read something that does not hold one row of the batch after the other (as positions "
    "do, which all rows share), so that rows cannot differ in their task: encoder.layer.0.attention.self.pos_proj, "
    "encoder.layer.0.attention.self.pos_q_proj; use --mode static",
    "Swinv2": "encoder.layers.0.blocks.0.attention.self.continuous_position_bias_mlp.2 also projects something that "
    "the whole batch shares (such as relative positions), which this graph does not let differ by row: use --mode "
    "static, leave the module out of target_modules, give DeBERTa-v2 as its transformers folder, or use --routing "
    "batch where the adapter has it",
}
_GROUPS = "as of a convolution in 2 groups, on which LoRA is not supported: leave it out of target_modules"
_POSITIONS = "adapter_model.safetensors: wav2vec2.encoder.pos_conv_embed.conv: lora_B has rank"
#: Rows whose modes read different adapters first.
_OF_CELLS = {
    ("wav2vec 2, all convolutions", "static"): f"task1/{_POSITIONS} 1, lora_A 2, {_GROUPS}",
    ("wav2vec 2, all convolutions", "conditioned"): f"task0/{_POSITIONS} 2, lora_A 4, {_GROUPS}",
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

#: Row of experts -> what its class calls them.
_EXPERTS = dict.fromkeys(("Mixtral", "Qwen3-MoE", "gpt-oss", "OLMoE"), "mlp") | {"Granite-MoE": "block_sparse_moe"}
#: Settings of PEFT's other methods with which an update has full rank -> PEFT's name of the method.
_FULL_RANK = {
    **dict.fromkeys(("BOFT", "BOFT, two factors"), "BOFT"),
    "C3A": "C3A",
    "FourierFT": "FOURIERFT",
    "FRoD": "FROD",
    **dict.fromkeys(("GLoRA", "GLoRA, vectors"), "GLORA"),
    "HiRA": "HIRA",
    "LoHa, high rank": "LOHA",
    "MiSS, Bat": "MISS",
    **dict.fromkeys(("OFT", "OFT, shared blocks", "OFT, all biases", "OFT, constrained"), "OFT"),
    "RandLoRA": "RANDLORA",
    **dict.fromkeys(("RoAd", "RoAd, four numbers"), "ROAD"),
    "SHiRA": "SHIRA",
    "WaveFT": "WAVEFT",
}
_TOO_MUCH = (
    "changes weights by matrices of full rank here, which hold as much as the weights themselves: use --mode static"
)

#: (row or setting, mode) -> the message. A setting's cell is the same on every row that it is tried on.
REFUSALS: dict[tuple[str, str], str] = {
    **{(name, mode): message for name, message in _OF_ROWS.items() for mode in ("static", "conditioned")},
    **_OF_CELLS,
    **{(name, "conditioned"): message for name, message in _OF_CONDITIONED.items()},
    **{
        (name, mode): f"{first}/adapter_config.json: init_lora_weights={start!r} is not supported: {reason}: {_CONVERT}"
        for name, (start, reason) in _STARTS.items()
        for mode, first in _FIRST.items()
    },
    **{
        (f"{name}, its experts", "conditioned"): "task 'task0': target_parameters in its adapter_config.json names "
        f"model.layers.0.{module}.experts.down_proj, and the rows of a batch cannot each have their own experts: "
        "export one adapter with --mode static"
        for name, module in _EXPERTS.items()
    },
    **{
        (name, "conditioned"): f"task0/adapter_config.json: peft_type {kind} {_TOO_MUCH}"
        for name, kind in _FULL_RANK.items()
    },
}
