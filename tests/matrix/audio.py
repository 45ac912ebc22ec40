"""Models of sound."""

from __future__ import annotations

from typing import Any

from tests.matrix.row import Row, sound, spectrograms

_WAVE: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "conv_dim": [8, 8],
    "conv_kernel": [5, 3],
    "conv_stride": [3, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "num_labels": 3,
    "apply_spec_augment": False,
    "initializer_range": 0.2,
}
_ROBUST = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_WHISPER: dict[str, Any] = {
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 36,
    "decoder_ffn_dim": 36,
    "num_mel_bins": 8,
    "max_source_positions": 10,
    "max_target_positions": 12,
    "vocab_size": 60,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "classifier_proj_size": 16,
    "num_labels": 3,
    "init_std": 0.2,
}
_AST: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "patch_size": 8,
    "frequency_stride": 4,
    "time_stride": 4,
    "max_length": 24,
    "num_mel_bins": 16,
    "num_labels": 3,
}
#: Name -> class, configuration, settings.
_WAVES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wav2vec 2": ("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", _WAVE),
    "wav2vec 2, CTC": ("Wav2Vec2ForCTC", "Wav2Vec2Config", _WAVE),
    "wav2vec 2, layer norms": ("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", _WAVE | _ROBUST),
    "HuBERT": ("HubertForSequenceClassification", "HubertConfig", _WAVE),
    "WavLM": ("WavLMForSequenceClassification", "WavLMConfig", _WAVE | {"num_buckets": 16, "max_bucket_distance": 20}),
    "UniSpeech-SAT": ("UniSpeechSatForSequenceClassification", "UniSpeechSatConfig", _WAVE),
    "Data2VecAudio": (
        "Data2VecAudioForSequenceClassification",
        "Data2VecAudioConfig",
        _WAVE | {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2},
    ),
}

ROWS: tuple[Row, ...] = (
    *(Row(name, "audio", kind, (config, own), sound(400)) for name, (kind, config, own) in _WAVES.items()),
    Row(
        "wav2vec 2, its convolutions",
        "audio",
        "Wav2Vec2ForSequenceClassification",
        ("Wav2Vec2Config", _WAVE | _ROBUST),
        sound(400),
        targets=("conv_layers.0.conv", "conv_layers.1.conv", "q_proj", "v_proj"),
    ),
    Row("AST", "audio", "ASTForAudioClassification", ("ASTConfig", _AST), spectrograms("input_values", 24, 16)),
    Row(
        "Whisper, classes of sound",
        "audio",
        "WhisperForAudioClassification",
        ("WhisperConfig", _WHISPER),
        spectrograms("input_features", 8, 20),
        targets=("q_proj", "v_proj", "fc1"),
    ),
)
