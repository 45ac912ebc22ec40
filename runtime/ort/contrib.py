"""When operators of ``com.microsoft``, their attributes and inputs came to ONNX Runtime.

Read off the first wheel of each release that could be had, 1.15.0 to 1.31.1: their operators' schemas and CPU kernels
(of 1.15 and 1.16, which show neither, by opening a model of one node). `make old-ort` compares the tables with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eptx.runtime.ort.releases import Release

#: Release -> the operators that it brings; the oldest one, all that it has.
OPERATORS: dict[Release, str] = {
    (1, 15): (
        "Attention AttnLSTM BeamSearch BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu "
        "BifurcationDetector BitmaskBiasDropout BitmaskDropout CDist ComplexMul ComplexMulConj "
        "ConvTransposeWithDynamicPads CropAndResize DecoderAttention DecoderMaskedMultiHeadAttention "
        "DecoderMaskedSelfAttention DequantizeBFP DequantizeLinear DequantizeWithOrder DynamicQuantizeLSTM "
        "DynamicQuantizeMatMul EmbedLayerNormalization ExpandDims FastGelu FusedConv FusedGemm FusedMatMul "
        "FusedMatMulActivation GatedRelativePositionBias GatherND Gelu GemmFastGelu GreedySearch GridSample "
        "GroupNorm Inverse Irfft IsAllFinite LongformerAttention MatMulInteger16 MatMulIntegerToFloat "
        "MaxpoolWithMask MulInteger MultiHeadAttention MurmurHash3 NGramRepeatBlock NhwcConv NhwcFusedConv "
        "NhwcMaxPool PackedAttention Pad QAttention QEmbedLayerNormalization QGemm QLinearAdd "
        "QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul "
        "QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere QOrderedAttention QOrderedGelu "
        "QOrderedLayerNormalization QOrderedLongformerAttention QOrderedMatMul QuantizeBFP QuantizeLinear "
        "QuantizeWithOrder QuickGelu Range ReduceSumInteger RelativePositionBias RemovePadding RestorePadding "
        "Rfft SampleOp Sampling SkipLayerNormalization SkipSimplifiedLayerNormalization Snpe "
        "SparseToDenseMatMul Tokenizer TorchEmbedding TransposeMatMul Trilu Unique WordConvEmbedding"
    ),
    (1, 16): "MatMulFpQ4 PackedMultiHeadAttention",
    (1, 17): (
        "DynamicTimeWarping EPContext GemmFloat8 GroupQueryAttention MatMulBnb4 MatMulNBits MoE "
        "RotaryEmbedding SkipGroupNorm UnfoldTensor WhisperBeamSearch"
    ),
    (1, 18): "GemmaRotaryEmbedding QMoE SparseAttention",
    (1, 20): "GatherBlockQuantized",
    (1, 23): "PagedAttention",
    (1, 26): "CausalConvWithState LinearAttention",
    (1, 27): "MatMulNBitsMlp MatMulNBitsQkv",
    (1, 29): (
        "GatedAdd GatedRMSNorm LinearAttentionGate MRotaryEmbedding MatMulBlockQuantizedFp4Weight "
        "MatMulBlockQuantizedFp8Weight"
    ),
    (1, 30): "EngramGate GatedDeltaNet NGramHashMapping VarlenCausalConvWithState",
    (1, 31): (
        "BranchwiseRMSNorm DynamicSparseAttention HyperConnectionPostMix HyperConnectionPreMix "
        "PackedSparseAttentionIndexer ScaledSiLU SparseAttentionIndexer SparsePagedAttention "
        "VarlenNGramHashMapping"
    ),
}
#: Operators whose kernel for CPUs came after their schema.
ON_CPU: dict[str, Release] = {
    "DecoderMaskedMultiHeadAttention": (1, 20),
    "DynamicTimeWarping": (1, 20),
    "GatedAdd": (1, 30),
    "GatedRMSNorm": (1, 30),
    "GroupQueryAttention": (1, 18),
    "LinearAttentionGate": (1, 30),
    "MoE": (1, 24),
    "QMoE": (1, 23),
    "SkipSimplifiedLayerNormalization": (1, 17),
    "SparseAttention": (1, 19),
    "UnfoldTensor": (1, 20),
}
#: Operator -> attribute that it did not have from the start -> the release that brought it.
ATTRIBUTES: dict[str, dict[str, Release]] = {
    "Attention": {
        "rotary_embedding_dim": (1, 17),
    },
    "CausalConvWithState": {
        "channels_last": (1, 30),
        "dilation": (1, 30),
        "state_window": (1, 29),
    },
    "DecoderMaskedMultiHeadAttention": {
        "output_qk": (1, 17),
    },
    "DecoderMaskedSelfAttention": {
        "do_rotary": (1, 16),
    },
    "EPContext": {
        "max_size": (1, 21),
        "onnx_model_filename": (1, 19),
    },
    "GatedRMSNorm": {
        "activation": (1, 31),
    },
    "GatherBlockQuantized": {
        "bits": (1, 23),
    },
    "GroupNorm": {
        "channels_last": (1, 16),
    },
    "GroupQueryAttention": {
        "causal": (1, 30),
        "k_quant_type": (1, 25),
        "kv_cache_bit_width": (1, 25),
        "qk_norm_epsilon": (1, 28),
        "qk_output": (1, 23),
        "sliding_window_cache": (1, 29),
        "smooth_softmax": (1, 20),
        "softcap": (1, 20),
        "v_quant_type": (1, 25),
    },
    "LinearAttention": {
        "state_window": (1, 29),
    },
    "MatMulNBits": {
        "weight_prepacked": (1, 28),
    },
    "MoE": {
        "activation_alpha": (1, 23),
        "activation_beta": (1, 23),
        "normalize_routing_weights": (1, 18),
        "swiglu_fusion": (1, 23),
        "swiglu_limit": (1, 23),
        "use_sparse_mixer": (1, 20),
    },
    "MultiHeadAttention": {
        "unidirectional": (1, 17),
    },
    "NGramHashMapping": {
        "reset_on_eos": (1, 31),
    },
    "PagedAttention": {
        "is_causal": (1, 30),
        "k_cache_dtype": (1, 29),
        "k_quant_type": (1, 29),
        "kv_cache_layout": (1, 29),
        "qk_norm_epsilon": (1, 29),
        "rotary_offset": (1, 29),
        "v_cache_dtype": (1, 29),
        "v_head_size": (1, 29),
        "v_quant_type": (1, 29),
    },
    "QMoE": {
        "accuracy_level": (1, 31),
        "activation_alpha": (1, 23),
        "activation_beta": (1, 23),
        "block_size": (1, 24),
        "expert_weight_bits": (1, 20),
        "fc1_expert_weight_bits": (1, 31),
        "fc2_expert_weight_bits": (1, 31),
        "fc3_expert_weight_bits": (1, 31),
        "quant_type": (1, 27),
        "swiglu_fusion": (1, 23),
        "swiglu_limit": (1, 23),
        "use_sparse_mixer": (1, 20),
        "weights_prepacked": (1, 28),
    },
    "RotaryEmbedding": {
        "is_packed_batching": (1, 19),
    },
    "WhisperBeamSearch": {
        "beginning_timestamp_token_id": (1, 18),
        "no_speech_token_id": (1, 18),
        "no_timestamps_token_id": (1, 18),
        "start_of_lm_token_id": (1, 18),
        "transcribe_token_id": (1, 18),
        "translate_token_id": (1, 18),
    },
}
#: Operator -> how many inputs -> the release from which on it takes as many.
INPUTS: dict[str, dict[int, Release]] = {
    "BeamSearch": {11: (1, 16)},
    "EngramGate": {6: (1, 31)},
    "GatedRelativePositionBias": {7: (1, 16)},
    "GroupQueryAttention": {10: (1, 22), 12: (1, 23), 13: (1, 25), 15: (1, 28)},
    "MatMulNBits": {5: (1, 18), 6: (1, 19)},
    "MoE": {7: (1, 18)},
    "MultiHeadAttention": {9: (1, 22)},
    "NGramHashMapping": {5: (1, 31)},
    "PagedAttention": {11: (1, 29)},
    "QMoE": {12: (1, 24), 15: (1, 25), 16: (1, 27)},
    "WhisperBeamSearch": {15: (1, 18)},
}
SINCE = {operator: release for release, names in OPERATORS.items() for operator in names.split()}


def operator_needs(
    operator: str, attributes: Sequence[str], inputs: int, provider: str
) -> Mapping[str, Release] | None:
    """What a node of an operator of ``com.microsoft`` needs -> the release that brought it; None of an unknown one.

    Args:
        operator: the node's type.
        attributes: the names of its attributes.
        inputs: how many inputs it has, empty ones in between counted.
        provider: ``cpu`` or ``cuda``; of kernels for CUDA nothing is known but their operators.
    """
    if operator not in SINCE:
        return None
    needs = {operator: SINCE[operator]}
    if provider == "cpu" and operator in ON_CPU:
        needs[f"{operator} on CPUs"] = ON_CPU[operator]
    brought = ATTRIBUTES.get(operator, {})
    needs |= {f"{name} of {operator}": brought[name] for name in attributes if name in brought}
    counts = INPUTS.get(operator, {})
    return needs | {f"{operator} with {least} inputs": counts[least] for least in counts if inputs >= least}
