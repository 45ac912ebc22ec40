"""Decoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.matrix.row import Row, texts
from tests.support.decoders import write_tokenizer

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # GenAI's attention turns multiples of 16 numbers of a head
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CAUSAL_LM: dict[str, Any] = {"task_type": "CAUSAL_LM"}


def tokenizer(folder: Path) -> None:
    """A tokenizer of 60 words."""
    write_tokenizer(folder, 60)


def _row(
    name: str,
    stem: str,
    own: Mapping[str, Any] | None = None,
    *,
    trained: str | None = None,
    plain: bool = False,
    targets: tuple[str, ...] | None = None,
) -> Row:
    """A decoder that goes on from its tokens; `plain`: its configuration knows no key-value heads and widths."""
    sizes = {k: v for k, v in SMALL.items() if not plain or k not in ("num_key_value_heads", "intermediate_size")}
    return Row(
        name,
        "decoders",
        trained or f"{stem}ForCausalLM",
        (f"{stem}Config", {**sizes, **(own or {})}),
        texts(60),
        kind="decoder",
        peft=CAUSAL_LM,
        targets=targets,
        prepare=tokenizer,
    )


def _headed(
    name: str, stem: str, head: str, task: str | None, own: Mapping[str, Any] | None = None, **more: Any
) -> Row:
    """A decoder with a head that is no language model, or with none, on a base that was saved as a language model."""
    row = _row(name, stem, own, **more)
    sizes = {**row.config[1], "num_labels": 3} if task != "FEATURE_EXTRACTION" else row.config[1]
    config = (row.config[0], sizes)
    return replace(
        row, trained=f"{stem}{head}", base=row.trained, kind="forward", config=config, peft={"task_type": task}
    )


_CLASSES = "ForSequenceClassification"
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_HEADS = {"head_dim": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_TWO = ["sliding_attention", "full_attention"]
_GPT2 = ("c_attn", "c_proj", "c_fc")
_SCALES = {
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.1,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_HALF = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}

#: GenAI's builder makes these.
_BUILT: tuple[Row, ...] = (
    _row("Llama", "Llama"),
    _row("Llama 3.2, tied", "Llama", {"tie_word_embeddings": True, "rope_parameters": _LLAMA3}),
    _row("Llama, biases", "Llama", {"attention_bias": True, "mlp_bias": True}),
    _row("Mistral, a window", "Mistral", {"sliding_window": 3}),
    _row("Qwen2", "Qwen2"),
    _row("Qwen2, a window", "Qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
    _row("Qwen3", "Qwen3", _HEADS),
    _row("Gemma", "Gemma", _HEADS),
    _row("Gemma 2, a window", "Gemma2", {**_HEADS, "sliding_window": 3, "query_pre_attn_scalar": 32}),
    _row("Phi", "Phi", {"num_attention_heads": 1}),
    _row("Phi-3", "Phi3", {"original_max_position_embeddings": 64}),
    _row(
        "Phi-4, partial rotary",
        "Phi3",
        {
            "original_max_position_embeddings": 64,
            "num_attention_heads": 1,
            "rope_parameters": _HALF,
        },
    ),
    _row("Granite", "Granite", _SCALES),
)
#: transformers' exporter makes these.
_TRACED: tuple[Row, ...] = (
    _row("Gemma 3", "Gemma3Text", {**_HEADS, "sliding_window": 3, "layer_types": _TWO}, trained="Gemma3ForCausalLM"),
    _row("SmolLM3", "SmolLM3", {"no_rope_layers": [1, 0]}),
    _row("OLMo, clipped", "Olmo", {"clip_qkv": 0.5}),
    _row("OLMo 2", "Olmo2"),
    _row("ERNIE 4.5", "Ernie4_5", _HEADS),
    _row("Nemotron", "Nemotron", _HEADS),
    _row("Hunyuan", "HunYuanDenseV1", _HEADS),
    _row("Mixtral", "Mixtral", _LOCAL, targets=_ATTENTION),
    _row("Qwen2-MoE", "Qwen2Moe", {**_EXPERTS, "shared_expert_intermediate_size": 24}, targets=_ATTENTION),
    _row("Qwen3-MoE", "Qwen3Moe", {**_HEADS, **_EXPERTS}, targets=_ATTENTION),
    _row("gpt-oss", "GptOss", {**_HEADS, **_LOCAL, "sliding_window": 3}, targets=_ATTENTION),
    _row("PhiMoE", "Phimoe", _LOCAL, targets=_ATTENTION),
    _row("GPT-2", "GPT2", {"n_positions": 64}, trained="GPT2LMHeadModel", plain=True, targets=_GPT2),
    _row("OPT", "OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}, plain=True),
    _row("GPT-NeoX", "GPTNeoX", {"rope_parameters": _HALF, "intermediate_size": 48}, plain=True),
    _row("GPT-J", "GPTJ", {"rotary_dim": 8, "n_positions": 64}, plain=True),
    _row("GPT-Neo, a window", "GPTNeo", {"attention_types": [[["global", "local"], 1]], "window_size": 3}, plain=True),
    _row("CodeGen", "CodeGen", {"rotary_dim": 8, "n_positions": 64, "num_attention_heads": 4}, plain=True),
    _row("BLOOM", "Bloom", {"n_layer": 2, "n_head": 2}, plain=True),
    _row("Falcon", "Falcon", plain=True),
    _row("Falcon, grouped", "Falcon", {"new_decoder_architecture": True, "num_kv_heads": 1}, plain=True),
    _row("Falcon, ALiBi", "Falcon", {"alibi": True, "num_attention_heads": 4}, plain=True),
    _row("MPT", "Mpt", {"d_model": 32, "n_heads": 2, "n_layers": 2, "max_seq_len": 64}, plain=True),
    _row("StableLM", "StableLm", {"use_qkv_bias": True}),
    _row("StarCoder 2, a window", "Starcoder2", {"sliding_window": 3}),
    _row("Cohere", "Cohere", {"logit_scale": 0.25}),
    _row("Cohere 2, a window", "Cohere2", {**_HEADS, "sliding_window": 3, "layer_types": _TWO}),
)
_PARAMETERS = {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
_TRAINED_EXPERTS: tuple[Row, ...] = tuple(
    replace(row, name=f"{row.name}, its experts", peft={**row.peft, **_PARAMETERS})
    for row in (
        _row("Mixtral", "Mixtral", _LOCAL, targets=_ATTENTION),
        _row("Qwen3-MoE", "Qwen3Moe", {**_HEADS, **_EXPERTS}, targets=_ATTENTION),
        _row("gpt-oss", "GptOss", {**_HEADS, **_LOCAL}, targets=_ATTENTION),
        _row("OLMoE", "Olmoe", {"num_experts": 4, "num_experts_per_tok": 2}, targets=_ATTENTION),
        _row("Granite-MoE", "GraniteMoe", _LOCAL, targets=_ATTENTION),
    )
)
_WITH_HEADS: tuple[Row, ...] = (
    _headed("Llama, sequence classification", "Llama", _CLASSES, "SEQ_CLS"),
    _headed("Mistral, sequence classification", "Mistral", _CLASSES, "SEQ_CLS", {"sliding_window": 3}),
    _headed("Llama, token classification", "Llama", "ForTokenClassification", "TOKEN_CLS"),
    _headed(
        "GPT-2, sequence classification",
        "GPT2",
        _CLASSES,
        "SEQ_CLS",
        trained="GPT2LMHeadModel",
        plain=True,
        targets=_GPT2,
    ),
    _headed("BLOOM, sequence classification", "Bloom", _CLASSES, "SEQ_CLS", {"n_layer": 2}, plain=True),
    _headed("Llama, features", "Llama", "Model", "FEATURE_EXTRACTION"),
    _headed("Qwen3, features", "Qwen3", "Model", "FEATURE_EXTRACTION", _HEADS),
    _headed(
        "GPT-2, features",
        "GPT2",
        "Model",
        "FEATURE_EXTRACTION",
        trained="GPT2LMHeadModel",
        plain=True,
        targets=_GPT2,
    ),
    Row(
        "Llama, new tokens and a tied head",
        "decoders",
        "LlamaForCausalLM",
        ("LlamaConfig", SMALL | {"tie_word_embeddings": True}),
        texts(60),
        kind="decoder",
        peft=CAUSAL_LM,
        prepare=tokenizer,
        tokens=(3, 5),
    ),
)
ROWS: tuple[Row, ...] = (*_BUILT, *_TRACED, *_TRAINED_EXPERTS, *_WITH_HEADS)
