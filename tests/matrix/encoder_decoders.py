"""Encoder-decoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.matrix.row import Arrays, Row, texts

_VOCABULARY = 60
_BART: dict[str, Any] = {
    "vocab_size": _VOCABULARY,
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 36,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_T5: dict[str, Any] = {
    "vocab_size": _VOCABULARY,
    "d_model": 24,
    "d_kv": 10,
    "num_heads": 3,
    "d_ff": 32,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
_WHISPER: dict[str, Any] = _BART | {
    "num_mel_bins": 6,
    "max_source_positions": 9,
    "max_target_positions": 40,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
_SEQ_2_SEQ_LM: dict[str, Any] = {"task_type": "SEQ_2_SEQ_LM"}


def _answers(rows: int) -> Arrays:
    return {"decoder_input_ids": np.random.default_rng(4).integers(3, _VOCABULARY, (rows, 6))}


def _texts(rows: int) -> Arrays:
    return texts(_VOCABULARY)(rows) | _answers(rows)


def _sounds(rows: int) -> Arrays:
    sound = np.random.default_rng(3).normal(size=(rows, 6, 18)).astype(np.float32)
    return {"input_features": sound, **_answers(rows)}


def _recordings(rows: int) -> Arrays:
    sound = np.random.default_rng(3).normal(size=(rows, 40, 6)).astype(np.float32)
    return {"input_features": sound, "attention_mask": np.ones((rows, 40), np.int64), **_answers(rows)}


def _closed(end: int) -> Callable[[int], Arrays]:
    """Texts that end in the token that ends texts: classifiers of whole encoder-decoders read what stands there."""

    def make(rows: int) -> Arrays:
        arrays = texts(_VOCABULARY)(rows)
        last = arrays["attention_mask"].sum(axis=1) - 1
        arrays["input_ids"][np.arange(rows), last] = end
        return arrays

    return make


def _bias(folder: Path) -> None:
    """A bias of the logits, which transformers starts with zeros."""
    file = folder / "model.safetensors"
    bias = np.random.default_rng(5).normal(0, 0.3, (1, _VOCABULARY)).astype(np.float32)
    save_file(load_file(file) | {"final_logits_bias": bias}, file, metadata={"format": "pt"})


def _generator(
    name: str, trained: str, config: str, settings: dict[str, Any], prepare: Callable[[Path], None] | None = None
) -> Row:
    return Row(
        name,
        "encoder-decoders",
        trained,
        (config, settings),
        _texts,
        kind="encoder-decoder",
        peft=_SEQ_2_SEQ_LM,
        prepare=prepare,
    )


ROWS: tuple[Row, ...] = (
    _generator("T5", "T5ForConditionalGeneration", "T5Config", _T5),
    _generator(
        "Flan-T5 (gated, untied)",
        "T5ForConditionalGeneration",
        "T5Config",
        _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    _generator("UMT5", "UMT5ForConditionalGeneration", "UMT5Config", _T5),
    _generator("BART", "BartForConditionalGeneration", "BartConfig", _BART, _bias),
    _generator("mBART", "MBartForConditionalGeneration", "MBartConfig", _BART | {"scale_embedding": True}, _bias),
    _generator("Marian", "MarianMTModel", "MarianConfig", _BART | {"scale_embedding": True}, _bias),
    _generator("Pegasus", "PegasusForConditionalGeneration", "PegasusConfig", _BART, _bias),
    _generator(
        "M2M100, NLLB",
        "M2M100ForConditionalGeneration",
        "M2M100Config",
        _BART | {"scale_embedding": True, "pad_token_id": 1, "bos_token_id": 0},
    ),
    _generator("BlenderBot", "BlenderbotForConditionalGeneration", "BlenderbotConfig", _BART, _bias),
    _generator("BlenderBot small", "BlenderbotSmallForConditionalGeneration", "BlenderbotSmallConfig", _BART, _bias),
    _generator("PLBART", "PLBartForConditionalGeneration", "PLBartConfig", _BART),
    Row(
        "Whisper",
        "encoder-decoders",
        "WhisperForConditionalGeneration",
        ("WhisperConfig", _WHISPER),
        _sounds,
        kind="encoder-decoder",
    ),
    Row(
        "T5's encoder",
        "encoder-decoders",
        "T5EncoderModel",
        ("T5Config", _T5),
        texts(_VOCABULARY),
    ),
    Row(
        "T5, sequence classification",
        "encoder-decoders",
        "T5ForSequenceClassification",
        ("T5Config", _T5 | {"num_labels": 3}),
        _closed(1),
    ),
    Row(
        "BART, sequence classification",
        "encoder-decoders",
        "BartForSequenceClassification",
        ("BartConfig", _BART | {"num_labels": 3}),
        _closed(2),
    ),
    _generator(
        "ProphetNet",
        "ProphetNetForConditionalGeneration",
        "ProphetNetConfig",
        {
            "vocab_size": _VOCABULARY,
            "hidden_size": 24,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "num_encoder_layers": 1,
            "num_decoder_layers": 1,
            "num_encoder_attention_heads": 2,
            "num_decoder_attention_heads": 2,
            "max_position_embeddings": 40,
        },
    ),
    _generator("LongT5", "LongT5ForConditionalGeneration", "LongT5Config", _T5 | {"local_radius": 3}),
    Row(
        "Speech2Text",
        "encoder-decoders",
        "Speech2TextForConditionalGeneration",
        (
            "Speech2TextConfig",
            {name: value for name, value in _WHISPER.items() if name != "num_mel_bins"}
            | {"input_feat_per_channel": 6, "conv_channels": 12, "max_source_positions": 20},
        ),
        _recordings,
        kind="encoder-decoder",
    ),
    Row("BART without a head", "encoder-decoders", "BartModel", ("BartConfig", _BART), texts(_VOCABULARY)),
)
