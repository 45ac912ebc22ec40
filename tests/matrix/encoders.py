"""Encoders of text: bare ones, and with the head that an adapter brings to a bare base."""

from __future__ import annotations

from typing import Any

from tests.matrix.row import Row, choices, pages, texts, unmasked

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
_WIDE = SMALL | {"initializer_range": 0.2}  # of a few numbers, which would hardly differ
SEQ_CLS: dict[str, Any] = {"task_type": "SEQ_CLS"}
_DISTILBERT = {
    "vocab_size": 60,
    "dim": 24,
    "n_layers": 1,
    "n_heads": 3,
    "hidden_dim": 36,
    "max_position_embeddings": 40,
}
_XLM = {"vocab_size": 60, "emb_dim": 24, "n_layers": 1, "n_heads": 3, "max_position_embeddings": 40, "n_langs": 1}
_DEBERTA = SMALL | {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_MODERNBERT = SMALL | {
    "num_hidden_layers": 2,
    "local_attention": 4,
    "global_attn_every_n_layers": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
_FUNNEL = {"vocab_size": 60, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 24, "n_head": 3, "d_head": 8}
#: Class -> its configuration. The rows' names are the classes' but for those in `_NAMED`.
_BARE: dict[str, dict[str, Any]] = {
    "Roberta": SMALL,
    "XLMRoberta": SMALL,
    "Camembert": SMALL,
    "DistilBert": _DISTILBERT,
    "Electra": SMALL | {"embedding_size": 16},
    "Albert": SMALL | {"embedding_size": 16, "num_hidden_layers": 2},
    "MPNet": SMALL,
    "Deberta": SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0},
    "DebertaV2": _DEBERTA | {"share_att_key": True},
    "ModernBert": _MODERNBERT,
    "NomicBert": SMALL,
    "EuroBert": SMALL | {"num_key_value_heads": 3},
    "Gte": SMALL,
    "JinaEmbeddingsV3": SMALL,
    "Data2VecText": SMALL,
    "XLMRobertaXL": SMALL,
    "Ernie": SMALL,
    "MegatronBert": SMALL,
    "Nystromformer": SMALL | {"segment_means_seq_len": 8, "num_landmarks": 8, "conv_kernel_size": 3},
    "RoFormer": SMALL | {"embedding_size": 24},
    "Esm": SMALL | {"pad_token_id": 1, "mask_token_id": 3, "token_dropout": False},
    "RemBert": SMALL | {"input_embedding_size": 16, "output_embedding_size": 20},
    "RobertaPreLayerNorm": SMALL,
    "Xmod": SMALL | {"languages": ["en_XX"], "default_language": "en_XX"},
    "ConvBert": SMALL | {"num_attention_heads": 4, "embedding_size": 24, "head_ratio": 2, "conv_kernel_size": 3},
    "Tapas": _WIDE,
    "BigBird": SMALL | {"attention_type": "original_full"},
    "XLM": _XLM,
    "Flaubert": _XLM,
    "Funnel": _FUNNEL | {"d_inner": 36},
    "MobileBert": SMALL
    | {"hidden_size": 32, "num_attention_heads": 4, "embedding_size": 16}
    | {"intra_bottleneck_size": 16, "true_hidden_size": 16},
}
#: What a class puts between the base and its head; PEFT saves it only when it is told to.
_BETWEEN = {"DebertaV2": ["pooler"], "ModernBert": ["head"]}
_NAMED = {"DebertaV2": "DeBERTa-v3", "XLMRoberta": "XLM-R", "Deberta": "DeBERTa"}


def _bare(kind: str, settings: dict[str, Any]) -> Row:
    return Row(_NAMED.get(kind, kind), "text", f"{kind}Model", (f"{kind}Config", settings), texts(60))


def _with_head(kind: str, head: str, task_type: str, settings: dict[str, Any]) -> Row:
    """An adapter's own head on a bare base, as on the hub."""
    name = f"{_NAMED.get(kind, kind)}, {task_type}, bare base"
    config = (f"{kind}Config", settings | {"num_labels": 2 if task_type == "QUESTION_ANS" else 3})
    between = _BETWEEN.get(kind, []) if task_type == "SEQ_CLS" or kind == "ModernBert" else []
    peft: dict[str, Any] = {"task_type": task_type} | ({"modules_to_save": between} if between else {})
    return Row(
        name,
        "text",
        f"{kind}For{head}",
        config,
        texts(60),
        base=f"{kind}Model",
        peft=peft,
        targets=("q_lin", "v_lin", "lin1") if kind == "DistilBert" else None,  # its pre_classifier comes whole
        adapters=2,
    )


ROWS: tuple[Row, ...] = (
    Row("BERT", "text", "BertModel", ("BertConfig", SMALL), texts(60, segments=True)),
    Row(
        "BERT, sequence classification",
        "text",
        "BertForSequenceClassification",
        ("BertConfig", SMALL | {"num_labels": 3}),
        texts(60),
        base="BertModel",
        peft=SEQ_CLS,
    ),
    *(_bare(kind, settings) for kind, settings in _BARE.items()),
    Row("LayoutLM", "text", "LayoutLMModel", ("LayoutLMConfig", _WIDE), pages(60)),
    Row("FNet", "text", "FNetModel", ("FNetConfig", SMALL), unmasked(60)),
    Row("BERT, masked LM", "text", "BertForMaskedLM", ("BertConfig", _WIDE), texts(60)),
    Row("BERT, multiple choice", "text", "BertForMultipleChoice", ("BertConfig", _WIDE), choices(60)),
    Row("RoBERTa, multiple choice", "text", "RobertaForMultipleChoice", ("RobertaConfig", _WIDE), choices(60)),
    *(
        _with_head(kind, "SequenceClassification", "SEQ_CLS", _BARE[kind])
        for kind in ("Roberta", "XLMRoberta", "DistilBert", "Electra", "Albert", "MPNet", "DebertaV2", "ModernBert")
    ),
    *(
        _with_head(kind, "TokenClassification", "TOKEN_CLS", {"Bert": SMALL, **_BARE}[kind])
        for kind in ("Bert", "Roberta", "DistilBert", "DebertaV2", "ModernBert")
    ),
    *(
        _with_head(kind, "QuestionAnswering", "QUESTION_ANS", {"Bert": SMALL, **_BARE}[kind])
        for kind in ("Bert", "Roberta", "DistilBert", "DebertaV2")
    ),
)
