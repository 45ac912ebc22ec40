"""Tiny base models as people keep them: weights in which every part matters, tokenizers, names of labels, settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.support.decoders import write_decoder
from tests.support.encoder_decoders import write_encoder_decoder

#: Words with capitals and accents among what they are asked for, so that a normalizer that is off is seen.
_WORDS = (
    "the",
    "cat",
    "dog",
    "café",
    "un",
    "##able",
    "##s",
    "eat",
    "not",
    "good",
    "bad",
    "film",
    "paris",
    "!",
    ".",
    ",",
)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_HALF = " bfloat16"
VOCABULARY, LENGTH = 120, 96
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": LENGTH,
}
_LABELS: dict[str, Any] = {
    "id2label": {0: "negative", 1: "neutral", 2: "positive"},
    "label2id": {"negative": 0, "neutral": 1, "positive": 2},
}
_DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "num_hidden_layers": 1,
}
_VIT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 16,
    "patch_size": 8,
    "num_channels": 3,
}
#: The encoders: configuration, its values, class.
_ENCODERS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "bert": (tf.BertConfig, _SIZES | _LABELS, tf.BertForSequenceClassification),
    "roberta": (
        tf.RobertaConfig,
        _SIZES | _LABELS | {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
        tf.RobertaForSequenceClassification,
    ),
    "bert plain": (tf.BertConfig, _SIZES, tf.BertForSequenceClassification),
    "deberta": (tf.DebertaV2Config, _SIZES | _DEBERTA | _LABELS, tf.DebertaV2ForSequenceClassification),
    "vit": (tf.ViTConfig, _VIT | _LABELS, tf.ViTForImageClassification),
}
#: Decoders of tests/support/decoders.py, with what is changed of them.
_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama tied", {}),
    "mistral": ("mistral", {"sliding_window": 16}),
    "qwen2": ("qwen2", {}),
    "gemma2": ("gemma2", {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "sliding_window": 16}),
}
CHAT = "{% for m in messages %}w5 {{ m['content'] }} w6{% endfor %}{% if add_generation_prompt %}w7{% endif %}"


def write_base(name: str, folder: Path) -> Path:
    """Writes a base's transformers folder: weights, configuration, and what goes with it.

    Args:
        name: "bert", "bert plain" (as it begins: biases of zero, norms of one), "roberta", "deberta", "vit", "llama"
            (tied), "mistral" (window of 16), "qwen2", "gemma2" (soft caps) or "t5"; one that ends in " bfloat16" is
            stored so.
        folder: where; it is made.
    """
    if name.endswith(_HALF):
        return _halve(write_base(name.removesuffix(_HALF), folder))
    if name == "t5":
        return write_encoder_decoder("t5", folder)
    if name in _DECODERS:
        kind, changes = _DECODERS[name]
        write_decoder(kind, folder, **changes)
        _talk(folder)
        return folder
    _encoder(name).save_pretrained(folder)
    if name == "vit":
        processor = {"do_resize": True, "size": {"height": 16, "width": 16}, "do_normalize": True, "do_rescale": True}
        numbers = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "resample": 2}
        kind_ = {"image_processor_type": "ViTImageProcessor"}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor | numbers | kind_, indent=2))
    else:
        _TOKENIZERS.get(name, _word_pieces)(folder)
    return folder


def _halve(folder: Path) -> Path:
    """Stores a base's weights as bfloat16, and says so."""
    file, settings = folder / "model.safetensors", folder / "config.json"
    halves = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(halves, file, metadata={"format": "pt"})
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"dtype": "bfloat16"}))
    return folder


def _encoder(name: str) -> Any:
    config_class, values, model_class = _ENCODERS[name]
    torch.manual_seed(7)
    model = model_class(config_class(**values)).eval()
    if name == "bert plain":
        return model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def _word_pieces(folder: Path) -> None:
    """BERT's: lower case, accents off, [CLS] and [SEP] around one text or two."""
    words = [*_SPECIAL, *(word.replace("é", "e") for word in _WORDS)]
    words += [f"t{i}" for i in range(VOCABULARY - len(words))]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    fast = tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=LENGTH,
    )
    fast.save_pretrained(folder)


def _byte_pairs(folder: Path) -> None:
    """RoBERTa's: bytes, whose spaces count."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: VOCABULARY - 10]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    fast = tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        bos_token="<s>",
        eos_token="</s>",
        mask_token="<mask>",
        model_max_length=LENGTH - 2,
    )
    fast.save_pretrained(folder)


_TOKENIZERS: dict[str, Callable[[Path], None]] = {"roberta": _byte_pairs}


def _talk(folder: Path) -> None:
    """A chat template, and how answers are drawn."""
    (folder / "chat_template.jinja").write_text(CHAT)
    settings = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1}
    tokens = {"bos_token_id": 1, "eos_token_id": [2, 4], "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(settings | tokens, indent=2))
