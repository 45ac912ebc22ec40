"""A small decoder that chats: tokenizers as models come with them, and a template that writes the BOS token."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from eptx.bundle import Bundle
from tests.support.decoders import write_decoder

TEMPLATE = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
MESSAGES = [{"role": "user", "content": "Is it raining?"}]
#: What is around the text: a BOS token (Llama, Gemma), nothing (Qwen, SmolLM2), both, an EOS token (T5).
AROUND = {"begun": "<s> $A", "bare": "$A", "begun and ended": "<s> $A </s>", "ended": "$A </s>"}
_NAMED = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"]
_SIZE = 300


def write_chat_tokenizer(folder: Path, around: str = "begun", *, pieces: bool = False) -> Any:
    """Writes a tokenizer of bytes, or of characters as SentencePiece has them, and gives it as transformers has it.

    What is left of 300 tokens are special ones, ``<|0|>`` and so on, so that an answer is full of them.
    """
    from transformers import PreTrainedTokenizerFast

    # the space first: GenAI looks for it there
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    characters = ["▁", *(chr(c) for c in range(33, 127)), "\n"] if pieces else alphabet
    special = [*_NAMED, *(f"<|{i}|>" for i in range(_SIZE - len(_NAMED) - len(characters)))]
    vocabulary = {token: i for i, token in enumerate([*_NAMED, *characters, *special[len(_NAMED) :]])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    if pieces:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.decoder = decoders.Replace("▁", " ")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    used = [(token, vocabulary[token]) for token in ("<s>", "</s>") if token in AROUND[around]]
    tokenizer.post_processor = processors.TemplateProcessing(single=AROUND[around], special_tokens=used)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[3:],
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return fast


def write_chat_bundle(
    folder: Path, *, pieces: bool = False, tasks: Sequence[str] = ("chat",), **changes: Any
) -> Bundle:
    """A small Llama with a LoRA for each task, and a tokenizer of bytes or of characters; static if there is one task.

    Args:
        folder: where to write it.
        pieces: whether its tokens are characters.
        tasks: their names.
        changes: to the base's configuration.
    """
    from eptx.calibration import export_bundle
    from eptx.exporter import ExportOptions
    from tests.exporter.validation.adapters import linear_shapes, write_lora

    with tempfile.TemporaryDirectory() as scratch:
        base = write_decoder("llama", Path(scratch) / "base", vocab_size=_SIZE, **changes)
        write_chat_tokenizer(base, pieces=pieces)
        shapes = linear_shapes(base, ("q_proj", "v_proj"))
        adapters = [
            write_lora(Path(scratch) / f"lora {task}", shapes, seed=seed) for seed, task in enumerate(tasks, start=1)
        ]
        mode = "static" if len(tasks) == 1 else "conditioned"
        return export_bundle(base, adapters, folder, ExportOptions(mode=mode, tasks=list(tasks)))
