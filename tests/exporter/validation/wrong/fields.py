# ruff: noqa: E501 (a table: one kind in a line)
"""What the bundle says about itself, and the files beside the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eptx.errors import BundleError
from eptx.files.strict_json import dump_json, read_json_object
from tests.exporter.validation.wrong.edits import (
    MANIFEST,
    Damage,
    JsonChange,
    json_file,
    manifest,
    put,
    rehash,
    text_file,
)
from tests.exporter.validation.wrong.kind import Kind

_GENAI, _CONFIG, _TOKENS = "genai_config.json", "config.json", "tokenizer.json"
_SETTINGS, _DRAWN, _IMAGES = "tokenizer_config.json", "generation_config.json", "preprocessor_config.json"


def _task(name: str, **new: Any) -> JsonChange:
    """What is said of one task."""

    def change(value: dict[str, Any]) -> None:
        next(task for task in value["tasks"] if task["name"] == name).update(new)

    return change


def _swapped(first: str, second: str, *fields: str) -> Damage:
    """Two tasks exchange fields."""

    def change(value: dict[str, Any]) -> None:
        a, b = (next(task for task in value["tasks"] if task["name"] == name) for name in (first, second))
        for field in fields:
            a[field], b[field] = b[field], a[field]

    return manifest(change)


def _words_swapped(first: str, second: str) -> Damage:
    """Two words of the vocabulary exchange their ids."""

    def change(value: dict[str, Any]) -> None:
        words = value["model"]["vocab"]
        words[first], words[second] = words[second], words[first]

    return json_file(_TOKENS, change)


def _without_end(value: dict[str, Any]) -> None:
    """Texts are no longer closed by [SEP]."""
    value["post_processor"]["single"].pop()


def _pad_id(value: dict[str, Any]) -> None:
    """[PAD] is the id of another word, and that word has its."""
    words = value["model"]["vocab"]
    words["[PAD]"], words["t1"] = words["t1"], 0
    next(token for token in value["added_tokens"] if token["content"] == "[PAD]")["id"] = words["[PAD]"]


def _routes_told(value: dict[str, Any]) -> None:
    routes = value["route"]["tasks"]
    routes["x"], routes["y"] = routes["y"], routes["x"]


def _one_expert(value: dict[str, Any]) -> None:
    value["route"]["tasks"]["x"][0]["weights"] = [1.0, 0.0, 0.0, 0.0]


def _labels_turned(value: dict[str, Any]) -> None:
    names = value["id2label"]
    names["0"], names["2"] = names["2"], names["0"]


def _gone(name: str) -> Damage:
    """A file that is neither there nor listed."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        value = read_json_object(folder / MANIFEST, error=BundleError)
        del value["files"][name]
        (folder / MANIFEST).write_bytes(dump_json(value))

    return damage


def _added(name: str, content: dict[str, Any]) -> Damage:
    """A file that the base does not have."""

    def damage(folder: Path) -> None:
        (folder / name).write_text(json.dumps(content))
        value = read_json_object(folder / MANIFEST, error=BundleError)
        value["files"][name] = {}
        (folder / MANIFEST).write_bytes(dump_json(value))
        rehash(folder)

    return damage


KINDS = (
    Kind("task names swapped", "bert", _swapped("alpha", "beta", "name"), "alpha|beta"),
    Kind("task ids swapped", "bert", _swapped("alpha", "beta", "id"), "alpha|beta"),
    Kind("ids of heads swapped", "heads", _swapped("cola", "stsb", "id"), "cola|stsb"),
    Kind("a task's id too large", "bert", manifest(_task("base", id=7)), "base"),
    Kind("a task's label count", "heads", manifest(_task("mnli", labels=2, label_names=None)), "mnli|labels"),
    Kind("label names turned round", "heads", manifest(_task("mnli", label_names=["contradiction", "neutral", "entailment"])), "mnli|label"),
    Kind("label names of another task", "heads", manifest(_task("cola", label_names=["yes", "no"])), "cola|label"),
    Kind("max_length too short", "bert", manifest(put(max_length=64)), "max_length"),
    Kind("max_length too long", "bert", manifest(put(max_length=512)), "max_length"),
    Kind("max_length counts the offset", "roberta", manifest(put(max_length=96)), "max_length"),
    Kind("a decoder's max_length too short", "llama", manifest(put(max_length=128)), "max_length"),
    Kind("max_length where there is none", "t5", manifest(put(max_length=64)), "max_length"),
    Kind("vocab_size too small", "bert", manifest(put(vocab_size=100)), "vocab_size"),
    Kind("vocab_size too large", "llama", manifest(put(vocab_size=128)), "vocab_size"),
    Kind("another eos", "llama", manifest(put(generation__eos=[3])), "eos"),
    Kind("one eos of two", "llama", manifest(put(generation__eos=[2])), "eos"),
    Kind("another pad", "llama", manifest(put(generation__pad=5)), "pad"),
    Kind("another start", "t5", manifest(put(generation__start=2)), "start"),
    Kind("another eos of an encoder-decoder", "t5", manifest(put(generation__eos=[2])), "eos"),
    Kind("a forced token", "t5", manifest(put(generation__rules__forced=[[5]])), "rules"),
    Kind("a suppressed token", "t5", manifest(put(generation__rules__suppress_tokens=[5])), "rules"),
    Kind("answers that are cut", "t5", manifest(put(generation__longest=9)), "longest"),
    Kind("a task of another problem type", "heads", manifest(_task("mnli", problem_type="multi_label_classification")), "mnli.*problem_type"),
    Kind("texts cut on the other side", "bert", manifest(put(text__truncation_side="left")), "text"),
    Kind("texts cut too early", "bert", manifest(put(text__max_length=9)), "text"),
    Kind("no modules", "bert", manifest(put(modules={})), "where it is in the graph"),
    Kind("routing", "bert tucka", manifest(put(routing="batch")), "routing|task"),
    Kind("frozen routes told the other way", "bert tucka frozen", manifest(_routes_told), "route|group"),
    Kind("routes of feed-forwards told the other way", "bert mixlora frozen", manifest(_routes_told), "layer.0.intermediate"),
    Kind("a route of too few experts", "bert mixlora frozen", manifest(_one_expert), "layer.0.intermediate|route"),
    Kind("fp32 claimed of fp16", "bert fp16", manifest(put(precision="fp32")), "precision|fp16|float16|task"),
    Kind("fp16 claimed of fp32", "bert", manifest(put(precision="fp16")), "precision"),
    Kind("int4 claimed of fp32", "llama", manifest(put(precision="int4")), "precision"),
    Kind("another model_type", "bert", manifest(put(model_type="roberta")), "model_type"),
    Kind("another top_k", "heads", manifest(put(sources__top_k=3)), "top_k|experts|query"),
    Kind("another method", "bert", manifest(put(method="tucka")), "method"),
    Kind("temperature", "llama", json_file(_GENAI, put(search__temperature=1.5)), "temperature"),
    Kind("search top_k", "llama", json_file(_GENAI, put(search__top_k=1)), "top_k"),
    Kind("search top_p", "llama", json_file(_GENAI, put(search__top_p=0.1)), "top_p"),
    Kind("search max_length", "llama", json_file(_GENAI, put(search__max_length=20)), "max_length"),
    Kind("search do_sample", "llama", json_file(_GENAI, put(search__do_sample=False)), "do_sample"),
    Kind("repetition penalty", "llama", json_file(_GENAI, put(search__repetition_penalty=1.5)), "repetition_penalty"),
    Kind("beams", "llama", json_file(_GENAI, put(search__num_beams=4)), "num_beams"),
    Kind("context_length too short", "qwen2", json_file(_GENAI, put(model__context_length=64)), "context_length"),
    Kind("context_length too long", "qwen2", json_file(_GENAI, put(model__context_length=131072)), "context_length"),
    Kind("GenAI's eos", "llama", json_file(_GENAI, put(model__eos_token_id=3)), "eos_token_id"),
    Kind("GenAI's pad", "llama", json_file(_GENAI, put(model__pad_token_id=9)), "pad_token_id"),
    Kind("GenAI's bos", "llama", json_file(_GENAI, put(model__bos_token_id=9)), "bos_token_id"),
    Kind("GenAI's layers", "llama", json_file(_GENAI, put(model__decoder__num_hidden_layers=1)), "num_hidden_layers"),
    Kind("GenAI's head size", "llama", json_file(_GENAI, put(model__decoder__head_size=8)), "head_size"),
    Kind("generation settings", "llama", json_file(_DRAWN, put(temperature=0.1)), "generation_config|temperature"),
    Kind("generation eos", "llama", json_file(_DRAWN, put(eos_token_id=[2])), "generation_config|eos"),
    Kind("another chat template", "llama", text_file("chat_template.jinja", "w6", "w8"), "chat_template"),
    Kind("chat template gone", "llama", _gone("chat_template.jinja"), "chat template"),
    Kind("a chat template that the base lacks", "t5", _added("tokenizer_config.json", {"chat_template": "{{ x }}"}), "tokenizer_config|chat_template"),
    Kind("two words swapped", "bert", _words_swapped("good", "bad"), "tokenizer"),
    Kind("two rare words of the tokenizer swapped", "bert", _words_swapped("t90", "t91"), "tokenizer"),
    Kind("two words of a decoder swapped", "llama", _words_swapped("w100", "w101"), "tokenizer"),
    Kind("two bytes swapped", "roberta", _words_swapped("a", "b"), "tokenizer"),
    Kind("no lower case", "bert", json_file(_TOKENS, put(normalizer__lowercase=False)), "tokenizer"),
    Kind("no normalizer", "bert", json_file(_TOKENS, put(normalizer=None)), "tokenizer"),
    Kind("accents kept", "bert", json_file(_TOKENS, put(normalizer__strip_accents=False)), "tokenizer"),
    Kind("no end of text", "bert", json_file(_TOKENS, _without_end), "tokenizer"),
    Kind("no post-processor", "roberta", json_file(_TOKENS, put(post_processor=None)), "tokenizer"),
    Kind("a space before every text", "roberta", json_file(_TOKENS, put(pre_tokenizer__add_prefix_space=True)), "tokenizer"),
    Kind("another id of [PAD]", "bert", json_file(_TOKENS, _pad_id), "tokenizer|pad"),
    Kind("another word pads", "bert", json_file(_SETTINGS, put(pad_token="[MASK]")), "tokenizer|pad"),
    Kind("texts cut at 16", "bert", json_file(_SETTINGS, put(model_max_length=16)), "model_max_length|tokenizer"),
    Kind("padding on the left", "bert", json_file(_SETTINGS, put(padding_side="left")), "padding_side|tokenizer"),
    Kind("texts cut on the left", "bert", json_file(_SETTINGS, put(truncation_side="left")), "truncation_side|tokenizer"),
    Kind("no tokenizer", "bert", _gone(_TOKENS), "tokenizer"),
    Kind("id2label turned round", "bert", json_file(_CONFIG, _labels_turned), "id2label"),
    Kind("label2id turned round", "bert", json_file(_CONFIG, put(label2id__negative=2, label2id__positive=0)), "label2id"),
    Kind("fewer token types", "bert", json_file(_CONFIG, put(type_vocab_size=1)), "type_vocab_size"),
    Kind("fewer positions", "bert", json_file(_CONFIG, put(max_position_embeddings=64)), "max_position_embeddings"),
    Kind("another pad in the configuration", "roberta", json_file(_CONFIG, put(pad_token_id=0)), "pad_token_id"),
    Kind("another activation in the configuration", "bert", json_file(_CONFIG, put(hidden_act="relu")), "hidden_act"),
    Kind("another window in the configuration", "mistral", json_file(_CONFIG, put(sliding_window=128)), "sliding_window"),
    Kind("no configuration", "bert", _gone(_CONFIG), "config.json"),
    Kind("pixels of another mean", "vit", json_file(_IMAGES, put(image_mean=[0.485, 0.456, 0.406])), "preprocessor|image_mean"),
    Kind("pixels not rescaled", "vit", json_file(_IMAGES, put(do_rescale=False)), "preprocessor|do_rescale"),
    Kind("pictures of another size", "vit", json_file(_IMAGES, put(size={"height": 32, "width": 32})), "preprocessor|size"),
)  # fmt: skip
