"""Text comes out as it becomes final: no half characters, no part of a stop text, and nothing lost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from eptx.runtime.generation.text import Detokenizer, StopTexts

TEXTS = st.text(st.sampled_from("ab é€😀\n▁你"), max_size=60)


def _bytes() -> Tokenizer:
    """A token for each byte, as GPT-2 writes them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pieces() -> Tokenizer:
    """SentencePiece as Llama has it: spaces as ▁, unknown characters as bytes."""
    vocab = [("<unk>", 0.0), *((f"<0x{b:02X}>", -9.0) for b in range(256)), ("▁", -2.0), ("a", -1.0), ("b", -1.0)]
    tokenizer = Tokenizer(models.Unigram([*vocab, ("▁a", -1.0), ("ab", -1.5)], unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _words() -> Tokenizer:
    """WordPiece as BERT has it."""
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(["[UNK]", "a", "##b", "b", ".", "'"])}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


TOKENIZERS = {"bytes": _bytes(), "pieces": _pieces(), "words": _words()}


def _check(tokenizer: Tokenizer, ids: list[int]) -> None:
    detokenizer = Detokenizer(tokenizer.decode)
    made = [detokenizer.add(token) for token in ids]
    assert "".join(made) == tokenizer.decode(ids).rstrip("\ufffd")


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=TEXTS)
def test_texts(name: str, text: str) -> None:
    _check(TOKENIZERS[name], TOKENIZERS[name].encode(text).ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
def test_any_tokens(name: str, data: st.DataObject) -> None:
    """What a model draws need not be text."""
    tokenizer = TOKENIZERS[name]
    token = st.integers(0, tokenizer.get_vocab_size() - 1)
    if name == "pieces":  # one byte that is no character turns all before it into such
        token = st.integers(257, tokenizer.get_vocab_size() - 1)
    _check(tokenizer, data.draw(st.lists(token, max_size=80)))


def test_no_half_characters() -> None:
    tokenizer = TOKENIZERS["bytes"]
    detokenizer = Detokenizer(tokenizer.decode)
    ids = tokenizer.encode("a😀é").ids
    assert [detokenizer.add(token) for token in ids] == ["a", "", "", "", "😀", "", "é"]
    cut = Detokenizer(tokenizer.decode)
    assert [cut.add(token) for token in ids[:4]] == ["a", "", "", ""]


def test_long_texts_are_not_decoded_again() -> None:
    longest = 0
    decode = TOKENIZERS["bytes"].decode

    def watched(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return str(decode(ids))

    detokenizer = Detokenizer(watched)
    text = "Ein Satz über Äpfel. " * 50
    assert "".join(detokenizer.add(token) for token in TOKENIZERS["bytes"].encode(text).ids) == text
    assert longest < 40


def _stopped(stop: list[str], parts: list[str]) -> tuple[str, bool]:
    texts, made = StopTexts(stop), ""
    for part in parts:
        text, stopped = texts.add(part)
        made += text
        if stopped:
            return made, True
    return made + texts.finish(), False


def test_stop_texts() -> None:
    assert _stopped(["END"], ["a E", "N", "D b"]) == ("a ", True)
    assert _stopped(["END"], ["a E", "N", "d"]) == ("a ENd", False)
    assert _stopped(["\n\n", "."], ["one\n", "two", ". x"]) == ("one\ntwo", True)
    assert _stopped(["aab"], ["a", "a", "a", "b"]) == ("a", True)
    assert _stopped([], ["a", "b"]) == ("ab", False)
    texts = StopTexts(["END"])
    assert [texts.add("x")[0], texts.add("E")[0], texts.add("x")[0]] == ["x", "", "Ex"]


@given(
    text=st.text("ab", max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=6),
    stop=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_stop_texts_however_they_are_cut(text: str, cuts: list[int], stop: list[str]) -> None:
    places = [0, *sorted(cuts), len(text)]
    parts = [text[a:b] for a, b in pairwise(places)]
    assert _stopped(stop, parts) == _stopped(stop, list(text))
    made, stopped = _stopped(stop, parts)
    assert stopped == any(s in text for s in stop)
    assert not any(s in made for s in stop)
    assert text.startswith(made)
