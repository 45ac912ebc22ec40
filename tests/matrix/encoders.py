"""Encoders of text."""

from __future__ import annotations

from typing import Any

from tests.matrix.row import Row, texts

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
SEQ_CLS: dict[str, Any] = {"task_type": "SEQ_CLS"}

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
    Row("RoBERTa", "text", "RobertaModel", ("RobertaConfig", SMALL), texts(60)),
)
